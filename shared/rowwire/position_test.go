package rowwire

import (
	"errors"
	"math"
	"testing"
)

// TestPositionsEnd: a version counts 2^32 positions, and another is refused rather than counted as an earlier one.
func TestPositionsEnd(t *testing.T) {
	t.Parallel()
	row := [][]byte{{0, 0, 0, 1}}
	for name, next := range map[string]func(*Transcoder) error{
		"Tuple":        func(tr *Transcoder) error { return tr.Tuple(row) },
		"SkipPosition": func(tr *Transcoder) error { _, err := tr.SkipPosition(); return err },
	} {
		l := Layout{Columns: []Column{{Name: "c", Kind: Int4, Field: 1}}, VersionField: 2}
		keep := func(b *Batch) (*Batch, error) { return b, nil }
		tr, err := NewTranscoder(l, nil, keep, func(r Reject) error { return errors.New(r.Reason.String()) })
		if err != nil {
			t.Fatal(err)
		}
		tr.position = math.MaxUint32
		if err := next(tr); err != nil {
			t.Errorf("%s refuses the last position: %v", name, err)
		}
		var fe *FormatError
		if err := next(tr); !errors.As(err, &fe) {
			t.Errorf("%s after the last position: %v", name, err)
		}
	}
}
