"""Acting on screens: what the model may do, and what it means on a real one."""
