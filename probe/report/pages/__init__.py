"""Pages of tables, a module for each thing that they show."""
