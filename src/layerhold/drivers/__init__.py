"""Where the files of layers are: one module for each driver, and how one is chosen."""
