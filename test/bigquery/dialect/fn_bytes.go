package dialect

import "strings"

func (e *printer) bytesCall(s *scope, c *call) (value, bool) {
	switch c.name {
	case "TO_HEX":
		arity(c, 1, 1)
		return typed(kindString, "lower(hex(%s))", e.arg(s, c, 0, kindBytes)), true
	case "FROM_HEX":
		arity(c, 1, 1)
		v := e.arg(s, c, 0, kindString)
		return typed(kindBytes, "unhex(CASE WHEN length(%s) %% 2 = 1 THEN '0' || %s ELSE %s END)", v, v, v), true
	case "TO_BASE64":
		arity(c, 1, 1)
		return typed(kindString, "to_base64(%s)", e.arg(s, c, 0, kindBytes)), true
	case "FROM_BASE64":
		arity(c, 1, 1)
		return typed(kindBytes, "from_base64(%s)", e.arg(s, c, 0, kindString)), true
	case "MD5", "SHA1", "SHA256":
		arity(c, 1, 1)
		return typed(kindBytes, "unhex(%s(%s))", strings.ToLower(c.name), e.hashable(s, c)), true
	case "FARM_FINGERPRINT":
		arity(c, 1, 1)
		if v := e.known(s, c, 0); v.typ.kind == kindBytes {
			return typed(kindInt64, "%s(%s)", fingerprintBytes, v.sql), true
		}
		return typed(kindInt64, "%s(%s)", fingerprintText, e.arg(s, c, 0, kindString)), true
	case "SAFE_CONVERT_BYTES_TO_STRING":
		refuse(c.position, "function %s", c.name)
	}
	return value{}, false
}

// hashable is a STRING or BYTES argument: both hash by their bytes.
func (e *printer) hashable(s *scope, c *call) string {
	v := e.known(s, c, 0)
	if v.typ.kind == kindBytes {
		return v.sql
	}
	return e.coerce(c.position, v, typ{kind: kindString}).sql
}
