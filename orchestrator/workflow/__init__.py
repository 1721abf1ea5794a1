"""What authors of workflows import, and what runs their code."""
