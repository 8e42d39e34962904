"""Where settings come from: files of three places, variables, and what is put in their place when nothing says."""
