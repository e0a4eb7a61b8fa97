"""What people and programs are shown: documents, text, tables, explanations."""
