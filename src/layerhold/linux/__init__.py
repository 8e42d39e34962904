"""Every system call that Python does not offer, one module per family, and no logic: encode, call, raise OSError."""
