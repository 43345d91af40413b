package nightly

// Reads is how often the rows of a run were read.
func (r *Reader) Reads() int { return r.reads }

// Used is about how many bytes are kept.
func (r *Reader) Used() int64 { return r.used }
