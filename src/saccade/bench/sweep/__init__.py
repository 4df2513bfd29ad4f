"""A sweep: many mechanisms, tasks and seeds from one plan, resumable, and the page that shows what it found."""
