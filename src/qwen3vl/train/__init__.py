"""Fine-tuning of any edition, and the generator of synthetic data that teaches a small one."""
