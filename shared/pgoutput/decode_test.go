package pgoutput_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tidemark-data/tidemark/shared/pgoutput"
)

// wire puts a message together the way Postgres does (pq_sendint and so on).
func wire(parts ...any) []byte {
	var b []byte
	for _, part := range parts {
		switch v := part.(type) {
		case byte:
			b = append(b, v)
		case rune:
			b = append(b, byte(v))
		case uint16:
			b = binary.BigEndian.AppendUint16(b, v)
		case uint32:
			b = binary.BigEndian.AppendUint32(b, v)
		case uint64:
			b = binary.BigEndian.AppendUint64(b, v)
		case string:
			b = append(append(b, v...), 0)
		case []byte:
			b = append(b, v...)
		default:
			panic(v)
		}
	}
	return b
}

// second is 2026-10-19 00:00:01.0005 UTC in microseconds since 2000.
const second = uint64(845683201_000_000 + 500)

func at() time.Time { return time.Date(2026, 10, 19, 0, 0, 1, 500_000, time.UTC) }

// samples are one message of each shape and what it decodes to.
func samples() map[string]struct {
	data []byte
	want pgoutput.Message
} {
	type sample = struct {
		data []byte
		want pgoutput.Message
	}
	row := wire(uint16(4), 'n', 'u', 't', uint32(2), []byte("hi"), 'b', uint32(4), uint32(7))
	tuple := pgoutput.Tuple{
		{Kind: pgoutput.Null},
		{Kind: pgoutput.Unchanged},
		{Kind: pgoutput.Text, Data: []byte("hi")},
		{Kind: pgoutput.Binary, Data: []byte{0, 0, 0, 7}},
	}
	key := wire(uint16(1), 'b', uint32(0))
	keyTuple := pgoutput.Tuple{{Kind: pgoutput.Binary, Data: []byte{}}}
	return map[string]sample{
		"begin":  {wire('B', uint64(0x16B374D848), second, uint32(77)), pgoutput.Begin{FinalLSN: 0x16B374D848, CommitTime: at(), XID: 77}},
		"commit": {wire('C', byte(0), uint64(1), uint64(2), second), pgoutput.Commit{LSN: 1, EndLSN: 2, Time: at()}},
		"origin": {wire('O', uint64(9), "elsewhere"), pgoutput.Origin{LSN: 9, Name: "elsewhere"}},
		"relation": {
			wire('R', uint32(16384), "public", `odd "name"`, 'd', uint16(2), byte(1), "id", uint32(20), uint32(1<<32-1), byte(0), "note", uint32(1043), uint32(36)),
			pgoutput.Relation{ID: 16384, Namespace: "public", Name: `odd "name"`, ReplicaIdentity: 'd', Columns: []pgoutput.Column{
				{Key: true, Name: "id", Type: 20, Modifier: -1}, {Name: "note", Type: 1043, Modifier: 36},
			}},
		},
		"relation without columns": {
			wire('R', uint32(1), "", "t", 'f', uint16(0)),
			pgoutput.Relation{ID: 1, Namespace: "pg_catalog", Name: "t", ReplicaIdentity: 'f', Columns: []pgoutput.Column{}},
		},
		"type":                    {wire('Y', uint32(16400), "public", "mood"), pgoutput.Type{ID: 16400, Namespace: "public", Name: "mood"}},
		"insert":                  {wire('I', uint32(5), 'N', row), pgoutput.Insert{Relation: 5, New: tuple}},
		"insert of no values":     {wire('I', uint32(5), 'N', uint16(0)), pgoutput.Insert{Relation: 5, New: pgoutput.Tuple{}}},
		"update":                  {wire('U', uint32(5), 'N', row), pgoutput.Update{Relation: 5, New: tuple}},
		"update of the key":       {wire('U', uint32(5), 'K', key, 'N', row), pgoutput.Update{Relation: 5, Key: keyTuple, New: tuple}},
		"update of the whole row": {wire('U', uint32(5), 'O', row, 'N', row), pgoutput.Update{Relation: 5, Old: tuple, New: tuple}},
		"delete by key":           {wire('D', uint32(5), 'K', key), pgoutput.Delete{Relation: 5, Key: keyTuple}},
		"delete by row":           {wire('D', uint32(5), 'O', row), pgoutput.Delete{Relation: 5, Old: tuple}},
		"truncate":                {wire('T', uint32(2), byte(3), uint32(5), uint32(6)), pgoutput.Truncate{Relations: []uint32{5, 6}, Cascade: true, RestartIdentity: true}},
		"truncate of one":         {wire('T', uint32(1), byte(0), uint32(5)), pgoutput.Truncate{Relations: []uint32{5}}},
		"logical message": {
			wire('M', byte(1), uint64(3), "app", uint32(2), []byte("xy")),
			pgoutput.LogicalMessage{Transactional: true, LSN: 3, Prefix: "app", Content: []byte("xy")},
		},
	}
}

func TestDecode(t *testing.T) {
	t.Parallel()
	for name, s := range samples() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := pgoutput.Decode(s.data)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(s.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestDecodeRefusesEveryCutAndEveryAddition(t *testing.T) {
	t.Parallel()
	for name, s := range samples() {
		for n := range s.data {
			if m, err := pgoutput.Decode(s.data[:n]); !errors.Is(err, pgoutput.ErrShort) {
				t.Errorf("%s, %d of %d bytes: got %v, %v; want ErrShort", name, n, len(s.data), m, err)
			}
		}
		if m, err := pgoutput.Decode(append(bytes.Clone(s.data), 0)); !errors.Is(err, pgoutput.ErrTrailing) {
			t.Errorf("%s and a byte: got %v, %v; want ErrTrailing", name, m, err)
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		data []byte
		want error
	}{
		"nothing":                         {nil, pgoutput.ErrShort},
		"an unknown kind":                 {wire('Z'), pgoutput.ErrFormat},
		"flags of a commit":               {wire('C', byte(1), uint64(1), uint64(2), second), pgoutput.ErrFormat},
		"an insert of an old row":         {wire('I', uint32(5), 'O', uint16(0)), pgoutput.ErrFormat},
		"an update without a new row":     {wire('U', uint32(5), 'K', uint16(0), 'K', uint16(0)), pgoutput.ErrFormat},
		"a delete of a new row":           {wire('D', uint32(5), 'N', uint16(0)), pgoutput.ErrFormat},
		"an unknown kind of value":        {wire('I', uint32(5), 'N', uint16(1), 'x'), pgoutput.ErrFormat},
		"a value that is said to be 4GB":  {wire('I', uint32(5), 'N', uint16(1), 'b', uint32(1<<32-1)), pgoutput.ErrShort},
		"65535 values that are not there": {wire('I', uint32(5), 'N', uint16(65535)), pgoutput.ErrShort},
		"a truncate of 4 billion tables":  {wire('T', uint32(1<<32-1), byte(0), uint32(5)), pgoutput.ErrShort},
	}
	for _, kind := range "SEcAbPKrp" {
		tests["kind "+string(kind)] = struct {
			data []byte
			want error
		}{wire(kind, uint32(1)), pgoutput.ErrRefused}
	}
	for name, test := range tests {
		if m, err := pgoutput.Decode(test.data); !errors.Is(err, test.want) || m != nil {
			t.Errorf("%s: got %v, %v; want %v", name, m, err, test.want)
		}
	}
}

func TestDecodeAllocatesByContentOnly(t *testing.T) {
	t.Parallel()
	lying := wire('R', uint32(1), "s", "t", 'd', uint16(65535), byte(1))
	result := testing.Benchmark(func(b *testing.B) {
		b.Helper()
		b.ReportAllocs()
		for b.Loop() {
			if _, err := pgoutput.Decode(lying); err == nil {
				b.Fatal("it was accepted")
			}
		}
	})
	if got := result.AllocedBytesPerOp(); got > 1024 {
		t.Errorf("a message of %d bytes that announces 65535 columns made Decode allocate %d bytes", len(lying), got)
	}
}

// FuzzDecode: whatever comes, Decode neither panics nor returns more than came.
func FuzzDecode(f *testing.F) {
	for _, s := range samples() {
		f.Add(s.data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := pgoutput.Decode(data)
		if (err == nil) == (m == nil) {
			t.Fatalf("got %v and %v", m, err)
		}
		size := 0
		for _, tuple := range tuples(m) {
			for _, v := range tuple {
				size += 1 + len(v.Data)
				if hasData := v.Kind == pgoutput.Text || v.Kind == pgoutput.Binary; hasData != (v.Data != nil) {
					t.Fatalf("a value of kind %q with data %v", v.Kind, v.Data)
				}
			}
		}
		if size > len(data) {
			t.Fatalf("%d bytes of values came out of %d bytes", size, len(data))
		}
	})
}

func tuples(m pgoutput.Message) []pgoutput.Tuple {
	switch m := m.(type) {
	case pgoutput.Insert:
		return []pgoutput.Tuple{m.New}
	case pgoutput.Update:
		return []pgoutput.Tuple{m.Key, m.Old, m.New}
	case pgoutput.Delete:
		return []pgoutput.Tuple{m.Key, m.Old}
	}
	return nil
}
