package rowwire

// Batch is a run of encoded rows. Its zero value is an empty batch ready for use.
type Batch struct {
	// Rows holds one encoded message per row, each a slice of one shared buffer. They are valid until the batch is
	// given back to the transcoder.
	Rows [][]byte
	// Bytes is the sum of the lengths of Rows.
	Bytes int

	buf  []byte
	ends []int // where each row ends in buf
}

// Reset empties the batch and keeps its memory for the next rows.
func (b *Batch) Reset() {
	b.Rows = b.Rows[:0]
	b.Bytes = 0
	b.buf = b.buf[:0]
	b.ends = b.ends[:0]
}

// seal makes Rows from the row ends. It is done once per batch, because the buffer may move while it grows.
func (b *Batch) seal() {
	start := 0
	for _, end := range b.ends {
		b.Rows = append(b.Rows, b.buf[start:end:end])
		start = end
	}
	b.Bytes = start
}
