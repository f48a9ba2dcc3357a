"""Videos: decode, leave out what shows nothing, classify over time, cut into segments, choose stills and clips."""
