package dialect

import (
	"errors"
	"testing"
)

// FuzzTranslate: any text is translated or refused with one of the two errors.
func FuzzTranslate(f *testing.F) {
	for _, tc := range valueCases() {
		f.Add(tc.query)
	}
	for _, query := range rejected() {
		f.Add(query)
	}
	f.Add("MERGE target x USING source s ON x.id = s.id WHEN MATCHED THEN UPDATE SET v = s.v WHEN NOT MATCHED THEN INSERT ROW")
	f.Add("CREATE TABLE d.t (id INT64 NOT NULL) PARTITION BY day CLUSTER BY id OPTIONS (a = 1)")
	f.Fuzz(func(t *testing.T, query string) {
		o := testOptions()
		o.Table = nil
		o.Parameter = func(string) (string, error) { return "NULL", nil }
		for _, err := range []error{second(Translate(query, o)), second(Describe(query)), second(Translate(query, Options{}))} {
			var u *Unsupported
			var s *SyntaxError
			if err != nil && !errors.As(err, &u) && !errors.As(err, &s) {
				t.Errorf("%q: %v", query, err)
			}
		}
	})
}

func second[T any](_ T, err error) error { return err }
