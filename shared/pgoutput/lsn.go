package pgoutput

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// LSN is a position in the write-ahead log, in bytes from its beginning. It is
// written the way Postgres writes a pg_lsn: two hexadecimal halves, "16/B374D848".
type LSN uint64

// String is the LSN as Postgres writes it.
func (l LSN) String() string { return fmt.Sprintf("%X/%X", uint64(l)>>32, uint32(l)) } //nolint:gosec // the lower half is meant

// ParseLSN reads what String and Postgres write.
func ParseLSN(text string) (LSN, error) {
	high, low, found := strings.Cut(text, "/")
	if !found {
		return 0, fmt.Errorf("parsing the LSN %q: it has no slash", text)
	}
	h, highErr := parseHalf(high)
	l, lowErr := parseHalf(low)
	if err := errors.Join(highErr, lowErr); err != nil {
		return 0, fmt.Errorf("parsing the LSN %q: %w", text, err)
	}
	return LSN(h<<32 | l), nil
}

// parseHalf takes what pg_lsn_in takes: one to eight hexadecimal digits, no sign.
func parseHalf(digits string) (uint64, error) {
	if len(digits) > 8 {
		return 0, fmt.Errorf("%q is longer than eight digits", digits)
	}
	half, err := strconv.ParseUint(digits, 16, 32)
	if err != nil {
		return 0, fmt.Errorf("reading a half: %w", err)
	}
	return half, nil
}

// MarshalText writes the LSN as String does, for JSON among others.
func (l LSN) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (l *LSN) UnmarshalText(text []byte) error {
	parsed, err := ParseLSN(string(text))
	if err != nil {
		return err
	}
	*l = parsed
	return nil
}

// Scan takes the text of a pg_lsn from a query (SELECT lsn::text). NULL is 0,
// which is no position.
func (l *LSN) Scan(value any) error {
	switch v := value.(type) {
	case nil:
		*l = 0
		return nil
	case string:
		return l.UnmarshalText([]byte(v))
	case []byte:
		return l.UnmarshalText(v)
	}
	return fmt.Errorf("reading an LSN: a %T is no text", value)
}
