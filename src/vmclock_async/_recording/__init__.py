"""Behind ``recording``: records, the moments of a part, the reader and the writer."""
