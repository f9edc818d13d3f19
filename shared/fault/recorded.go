package fault

// recorded marks an error that already stands in tidemark.runs.
type recorded struct{ error }

func (r recorded) Unwrap() error { return r.error }

// Recorded marks err as already written to the log of runs.
func Recorded(err error) error {
	if err == nil {
		return nil
	}
	return recorded{err}
}

// IsRecorded reports whether all of err, joined errors included, already stands
// in the log of runs.
func IsRecorded(err error) bool {
	switch e := err.(type) { //nolint:errorlint // the chain is walked step by step
	case recorded:
		return true
	case interface{ Unwrap() []error }:
		for _, part := range e.Unwrap() {
			if !IsRecorded(part) {
				return false
			}
		}
		return true
	case interface{ Unwrap() error }:
		return IsRecorded(e.Unwrap())
	}
	return false
}

// Parts returns the errors that were joined into err, or err alone. An *Error is
// one, whatever was joined in it: its author knew its class.
func Parts(err error) []error { return Split(err, func(error) bool { return false }) }

// Split is Parts where what whole says is one, too, whatever was joined in it.
func Split(err error, whole func(error) bool) []error {
	if whole(err) {
		return []error{err}
	}
	switch e := err.(type) { //nolint:errorlint // the chain is walked step by step
	case *Error:
	case interface{ Unwrap() []error }:
		var out []error
		for _, part := range e.Unwrap() {
			out = append(out, Split(part, whole)...)
		}
		return out
	case interface{ Unwrap() error }:
		if inner := Split(e.Unwrap(), whole); len(inner) > 1 {
			return inner
		}
	}
	return []error{err}
}
