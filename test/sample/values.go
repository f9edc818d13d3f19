package sample

import (
	"encoding/json"
	"fmt"
	"math/big"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgtype"
)

// values draws the application's data: plausible, and with what trips up a
// careless copy: NULLs, empty texts and arrays, other scripts, quotes, line
// breaks, integers above 2^53 in JSON, times with microseconds.
type values struct{ *rand.Rand }

func newValues(seed uint64) values {
	return values{rand.New(rand.NewPCG(seed, 0x7469_6465_6d61_726b))}
}

func pick[T any](v values, options ...T) T { return options[v.IntN(len(options))] }

// sometimes is the value in `percent` of a hundred cases, else NULL.
func sometimes[T any](v values, percent int, value T) any {
	if v.IntN(100) < percent {
		return value
	}
	return nil
}

func (v values) id(count int) int64 { return 1 + v.Int64N(int64(count)) }

func (v values) uuid() pgtype.UUID {
	id := pgtype.UUID{Bytes: [16]byte(v.bytes(16)), Valid: true}
	id.Bytes[6] = id.Bytes[6]&0x0f | 0x40 // version 4
	id.Bytes[8] = id.Bytes[8]&0x3f | 0x80
	return id
}

func (v values) bytes(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(v.Uint32())
	}
	return b
}

// decimal is a number of the given scale, below 10^digits before the point.
func (v values) decimal(digits, scale int) pgtype.Numeric {
	limit := int64(1)
	for range digits + scale {
		limit *= 10
	}
	return pgtype.Numeric{Int: big.NewInt(v.Int64N(limit)), Exp: -int32(scale), Valid: true}
}

func (v values) name() string {
	first := pick(v, "Amara", "Björk", "Chidi", "Dolores", "Émile", "Fatima", "Guðrún", "Hiroshi", "Inés", "Jamal", "Kateryna", "李", "محمد", "O'Neil", "Søren")
	last := pick(v, "Adeyemi", "Brown", "Çelik", "D'Angelo", "Eriksson", "Fernández", "Gupta", "Haddad", "İnce", "Jónsdóttir", "Kowalski", "Nguyễn", "王")
	return first + " " + last
}

func (v values) phone() string { return fmt.Sprintf("+%d%09d", 1+v.IntN(99), v.IntN(1_000_000_000)) }

func (v values) body() string {
	return pick(v,
		"Hello! How can we help?", "Yes", "No, thank you", "", "Where is my order №"+strconv.Itoa(v.IntN(1e6))+"?",
		"Merci beaucoup 🙏", "Ok 👍🏽", "line one\nline two\tand a tab", `back\slash "quoted" 'single'`,
		"STOP", "你好,请问几点开门?", "مرحبا", strings.Repeat("lorem ipsum ", 1+v.IntN(20)))
}

func (v values) labels() []string {
	labels := []string{}
	for range v.IntN(4) {
		labels = append(labels, pick(v, "vip", "new", "lapsed", "région nord", "a,b", `"x"`, ""))
	}
	return labels
}

func (v values) document(keys ...string) json.RawMessage {
	document := make(map[string]any, len(keys))
	for _, key := range keys {
		document[key] = pick[any](v,
			v.IntN(1000), json.Number("9007199254740993"), json.Number("0.1"), v.body(), true, nil,
			[]any{1, "two", nil}, map[string]any{"nested": v.IntN(10)})
	}
	text, err := json.Marshal(document)
	if err != nil {
		panic(err) // plain maps of plain values
	}
	return text
}

func (v values) date() time.Time {
	return time.Date(1950, 1, 1, 0, 0, 0, 0, time.UTC).AddDate(0, 0, v.IntN(20_000))
}

// within is a moment up to d before end, to the microsecond.
func (v values) within(d time.Duration, end time.Time) time.Time {
	return end.Add(-time.Duration(v.Int64N(int64(d)))).Truncate(time.Microsecond)
}

func (v values) timeOfDay() pgtype.Time {
	return pgtype.Time{Microseconds: v.Int64N(24 * 3600 * 1_000_000), Valid: true}
}
