package workload

import (
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// text is a value in Postgres' text format.
type text string

// value draws a value of a column, and false for a type without a generator.
func (k kind) value(r *rand.Rand, c *column) (text, bool) {
	if c.array {
		return k.arrayValue(r)
	}
	if near, ok := k.near(r, c.samples); ok && r.IntN(2) == 0 {
		return near, true
	}
	return k.scalar(r)
}

// near draws a value like those found, so that conditions we cannot read (a CHECK,
// a domain's range) are met more often than not.
func (k kind) near(r *rand.Rand, samples []text) (text, bool) {
	if len(samples) == 0 {
		return "", false
	}
	sample := samples[r.IntN(len(samples))]
	switch k.name {
	case "int2", "int4", "int8":
		n, err := strconv.ParseInt(string(sample), 10, 64)
		if err != nil {
			return "", false
		}
		return text(strconv.FormatInt(n+int64(r.IntN(101))-50, 10)), true
	case "date", "timestamp", "timestamptz", "text", "varchar", "numeric", "float4", "float8":
		return sample, true
	}
	return "", false
}

// scalar draws over the type's range, with its edges: most bugs live there.
func (k kind) scalar(r *rand.Rand) (text, bool) {
	if len(k.labels) > 0 {
		return text(k.labels[r.IntN(len(k.labels))]), true
	}
	switch k.name {
	case "bool":
		return text(strconv.FormatBool(r.IntN(2) == 0)), true
	case "int2":
		return integer(r, 16), true
	case "int4":
		return integer(r, 32), true
	case "int8":
		return integer(r, 64), true
	case "oid":
		return text(strconv.FormatUint(uint64(r.Uint32()), 10)), true
	case "float4":
		return text(strconv.FormatFloat(float64(float32(r.NormFloat64()*1e3)), 'g', -1, 32)), true
	case "float8":
		return text(strconv.FormatFloat(r.NormFloat64()*1e6, 'g', -1, 64)), true
	case "numeric":
		return k.numeric(r), true
	case "money":
		return text(fmt.Sprintf("%d.%02d", r.IntN(100_000), r.IntN(100))), true
	case "text", "varchar", "bpchar", "citext", "name":
		return k.characters(r), true
	case "bytea":
		return text(`\x` + hex.EncodeToString(octets(r, r.IntN(40)))), true
	case "bit", "varbit":
		return k.bits(r), true
	case "uuid":
		b := octets(r, 16)
		return text(fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])), true
	case "json", "jsonb":
		return document(r, 3), true
	case "xml":
		return text(fmt.Sprintf("<a n=\"%d\">é</a>", r.IntN(1000))), true
	case "tsvector":
		return text(fmt.Sprintf("'tide':%d 'mark':%d", 1+r.IntN(9), 10+r.IntN(9))), true
	case "inet":
		return text(netip.AddrFrom4([4]byte(octets(r, 4))).String()), true
	case "cidr":
		return text(netip.PrefixFrom(netip.AddrFrom4([4]byte(octets(r, 4))), 16).Masked().String()), true
	case "macaddr":
		return text(net.HardwareAddr(octets(r, 6)).String()), true
	}
	return temporal(k.name, r)
}

func temporal(name string, r *rand.Rand) (text, bool) {
	moment := time.Date(1900, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(r.Int64N(9e18))).Truncate(time.Microsecond)
	layouts := map[string]string{
		"date": "2006-01-02", "time": "15:04:05.999999", "timetz": "15:04:05.999999+02:00",
		"timestamp": "2006-01-02 15:04:05.999999", "timestamptz": "2006-01-02 15:04:05.999999Z07:00",
	}
	if layout, ok := layouts[name]; ok {
		return text(moment.Format(layout)), true
	}
	switch name {
	case "interval":
		return text(fmt.Sprintf("%d mons %d days %d.%06d secs", r.IntN(30)-10, r.IntN(60)-20, r.IntN(90_000), r.IntN(1_000_000))), true
	case "int4range", "int8range":
		return text(fmt.Sprintf("[%d,%d)", r.IntN(100), 100+r.IntN(100))), true
	case "daterange":
		return text(fmt.Sprintf("[%s,%s)", moment.Format("2006-01-02"), moment.AddDate(0, 1, 0).Format("2006-01-02"))), true
	}
	return "", false
}

// integer draws a magnitude first, so that small and great numbers are as likely,
// and now and then an end of the range.
func integer(r *rand.Rand, bits int) text {
	switch r.IntN(20) {
	case 0:
		return text(strconv.FormatInt(-1<<(bits-1), 10))
	case 1:
		return text(strconv.FormatInt(1<<(bits-1)-1, 10))
	}
	n := int64(r.Uint64() >> (64 - bits + 1) >> r.IntN(bits-1))
	if r.IntN(3) == 0 {
		n = -n
	}
	return text(strconv.FormatInt(n, 10))
}

// numeric keeps to what BIGNUMERIC holds: 38 digits before the point and 38 after.
func (k kind) numeric(r *rand.Rand) text {
	before, after := 1+r.IntN(30), r.IntN(30)
	if k.typmod >= 4 { // ((precision << 16) | scale) + 4, see numeric.c
		precision, scale := int(k.typmod-4)>>16, int(k.typmod-4)&0x7ff
		before, after = precision-scale, scale
	}
	var b strings.Builder
	if r.IntN(3) == 0 {
		b.WriteByte('-')
	}
	b.WriteString(digits(r, before))
	if after > 0 {
		b.WriteString("." + digits(r, after))
	}
	return text(b.String())
}

func digits(r *rand.Rand, n int) string {
	if n <= 0 {
		return "0"
	}
	b := make([]byte, n)
	for i := range b {
		b[i] = byte('0' + r.IntN(10))
	}
	return string(b)
}

// characters draws text within the declared length, from several scripts.
func (k kind) characters(r *rand.Rand) text {
	limit := 40
	if k.typmod >= 4 { // the length, and 4 for the header
		limit = min(limit, int(k.typmod-4))
	}
	if k.name == "name" {
		limit = 15 // 63 bytes
	}
	alphabet := []rune("abcdefghijklmnopqrstuvwxyz     ABCXYZ0123456789'\"\\\n\t,;{}%_éüßşı漢字かなصباح🙂👍🏽")
	runes := make([]rune, r.IntN(limit+1))
	for i := range runes {
		runes[i] = alphabet[r.IntN(len(alphabet))]
	}
	return text(runes)
}

func (k kind) bits(r *rand.Rand) text {
	length := max(1, int(k.typmod))
	b := make([]byte, length)
	for i := range b {
		b[i] = byte('0' + r.IntN(2))
	}
	return text(b)
}

func octets(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func document(r *rand.Rand, depth int) text {
	if depth == 0 || r.IntN(3) == 0 {
		return []text{"null", "true", "0", "-1.5", "9007199254740993", `"é\"\\\n"`, `""`, "1e3"}[r.IntN(8)]
	}
	parts := make([]string, r.IntN(4))
	if r.IntN(2) == 0 {
		for i := range parts {
			parts[i] = string(document(r, depth-1))
		}
		return text("[" + strings.Join(parts, ", ") + "]")
	}
	for i := range parts {
		parts[i] = fmt.Sprintf(`"k%d": %s`, i, document(r, depth-1))
	}
	return text("{" + strings.Join(parts, ", ") + "}")
}

func (k kind) arrayValue(r *rand.Rand) (text, bool) {
	elements := make([]string, r.IntN(4))
	for i := range elements {
		value, ok := k.scalar(r)
		if !ok {
			return "", false
		}
		quoted := strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(string(value))
		elements[i] = `"` + quoted + `"`
	}
	return text("{" + strings.Join(elements, ",") + "}"), true
}
