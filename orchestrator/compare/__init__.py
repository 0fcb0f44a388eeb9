"""Any adapters compared, without a study."""
