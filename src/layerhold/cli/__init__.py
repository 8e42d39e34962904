"""The command `layerhold`: words in, words out. What it does is what the library does.

It takes the words of the newest `containers-storage` and prints what that prints; docs/compatibility.md has what
differs.
"""
