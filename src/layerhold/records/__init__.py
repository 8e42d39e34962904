"""The JSON files of a store: what is in a record, how it is written, when it is read again."""
