package dialect

import "fmt"

// Unsupported is a refusal: BigQuery may well accept the statement, this
// package does not know how to give it the same meaning.
type Unsupported struct { //nolint:errname // read as what it says: *dialect.Unsupported
	// Name is the function, type, statement or construct.
	Name string
	// Line and Column count from 1.
	Line, Column int
}

// Error names what is not supported and where it stands.
func (e *Unsupported) Error() string {
	return fmt.Sprintf("%s is not supported by the BigQuery emulator at [%d:%d]", e.Name, e.Line, e.Column)
}

// SyntaxError is a statement that BigQuery refuses too: it does not parse, or
// names what does not exist, or breaks a rule that this package checks.
type SyntaxError struct {
	Message string
	// Line and Column count from 1.
	Line, Column int
}

// Error returns the message with its position in BigQuery's form.
func (e *SyntaxError) Error() string {
	return fmt.Sprintf("%s at [%d:%d]", e.Message, e.Line, e.Column)
}

// stop carries an error out of the recursive parser and printer; the exported
// functions recover it. No other panic is recovered.
type stop struct{ err error }

func refuse(p position, format string, args ...any) {
	panic(stop{&Unsupported{Name: fmt.Sprintf(format, args...), Line: p.line, Column: p.column}})
}

func reject(p position, format string, args ...any) {
	panic(stop{&SyntaxError{Message: fmt.Sprintf(format, args...), Line: p.line, Column: p.column}})
}

// recovered stores a stop's error in err.
func recovered(err *error) {
	switch r := recover().(type) {
	case nil:
	case stop:
		*err = r.err
	default:
		panic(r)
	}
}
