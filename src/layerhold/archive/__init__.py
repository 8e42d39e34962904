"""Tar streams: read, taken apart and put together again, unpacked, compared, written."""
