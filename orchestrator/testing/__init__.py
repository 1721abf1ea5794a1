"""What users' tests and our simulation need."""
