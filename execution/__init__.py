"""Steps planned, executed once, stored whole and found again. Knows no study: it could run any project's steps."""
