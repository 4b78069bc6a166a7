"""How sure an accuracy, a difference or a lead is."""
