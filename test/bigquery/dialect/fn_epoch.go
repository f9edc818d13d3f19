package dialect

// epochCall converts between TIMESTAMP and counts since 1970. UNIX_SECONDS and
// UNIX_MILLIS round down, also before 1970.
func (e *printer) epochCall(s *scope, c *call) (value, bool) {
	per := map[string]int{"SECONDS": 1000000, "MILLIS": 1000, "MICROS": 1}
	switch c.name {
	case "UNIX_SECONDS", "UNIX_MILLIS", "UNIX_MICROS":
		arity(c, 1, 1)
		v := "epoch_us(" + e.arg(s, c, 0, kindTimestamp) + ")"
		n := per[c.name[len("UNIX_"):]]
		return typed(kindInt64, "((%s - ((%s %% %d) + %d) %% %d) // %d)", v, v, n, n, n, n), true
	case "TIMESTAMP_SECONDS", "TIMESTAMP_MILLIS", "TIMESTAMP_MICROS":
		arity(c, 1, 1)
		n := per[c.name[len("TIMESTAMP_"):]]
		return typed(kindTimestamp, "make_timestamptz(%s * %d)", e.arg(s, c, 0, kindInt64), n), true
	case "UNIX_DATE":
		arity(c, 1, 1)
		return typed(kindInt64, "(%s - DATE '1970-01-01')", e.arg(s, c, 0, kindDate)), true
	}
	return value{}, false
}
