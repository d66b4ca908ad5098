"""Any model file or name -> Subject; start at load.py."""
