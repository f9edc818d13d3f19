package typematrix

import (
	"fmt"
	"maps"
	"strings"

	"github.com/tidemark-data/tidemark/shared/rowwire"
)

// Setup is the SQL that the types need. The types of pgvector and PostGIS are stood in
// for by types of their names whose text, casts and functions are alike.
func Setup() []string {
	return append(append([]string{
		`CREATE EXTENSION hstore`, `CREATE EXTENSION citext`, `CREATE EXTENSION ltree`,
		`CREATE TYPE mood AS ENUM ('', 'glad', 'très triste')`,
		`CREATE TYPE pair AS (n numeric, j json)`,
		`CREATE DOMAIN price AS numeric(12,2) CHECK (VALUE >= 0)`,
		`CREATE DOMAIN tags AS text[]`,
	}, standIn("vector", `CREATE FUNCTION reals(vector) RETURNS real[] LANGUAGE sql IMMUTABLE STRICT AS $$ SELECT translate($1::text, '[]', '{}')::real[] $$`,
		`CREATE CAST (vector AS real[]) WITH FUNCTION reals(vector)`)...),
		standIn("geography", `CREATE FUNCTION st_asewkt(geography, int) RETURNS text LANGUAGE sql IMMUTABLE STRICT AS $$ SELECT $1::text $$`)...)
}

// standIn is a type that is text underneath.
func standIn(name string, more ...string) []string {
	out := []string{"CREATE TYPE " + name}
	for function, signature := range map[string]string{"in": "(cstring) RETURNS {}", "recv": "(internal) RETURNS {}", "out": "({}) RETURNS cstring", "send": "({}) RETURNS bytea"} {
		out = append(out, fmt.Sprintf("CREATE FUNCTION %s_%s%s LANGUAGE internal IMMUTABLE STRICT AS 'text%s'", name, function, strings.ReplaceAll(signature, "{}", name), function))
	}
	return append(append(out, strings.ReplaceAll("CREATE TYPE {} (INPUT = {}_in, OUTPUT = {}_out, RECEIVE = {}_recv, SEND = {}_send, LIKE = text)", "{}", name)), more...)
}

type cells map[Value]Cell

func same(sql string) Cell                     { return Cell{SQL: sql, Same: true} }
func is(sql, text string) Cell                 { return Cell{SQL: sql, Exact: text} }
func refused(sql string) Cell                  { return Cell{SQL: sql, Refused: true} }
func literal(value string) string              { return "'" + strings.ReplaceAll(value, "'", "''") + "'" }
func kept(r rowwire.Reason) Cell               { return Cell{Quarantined: r} }
func keptAs(sql string, r rowwire.Reason) Cell { return Cell{SQL: sql, Quarantined: r} }

// ends are the ends of a type's range, and what Postgres refuses beyond them.
func ends(minimum, maximum, below, above string) cells {
	return cells{Minimum: same(literal(minimum)), Maximum: same(literal(maximum)), Below: refused(literal(below)), Above: refused(literal(above))}
}

// but is the cells with others in their place.
func (c cells) but(others ...cells) cells {
	out := maps.Clone(c)
	for _, o := range others {
		maps.Copy(out, o)
	}
	return out
}

// noText is a type that has no value of the texts that are tried with every type.
func noText(others ...cells) cells {
	out := cells{}
	for _, v := range Values() {
		out[v] = refused("")
	}
	out[Null] = same("")
	// A text that is this long is refused as a shorter one is, which Postgres repeats in
	// its message.
	out[Large], out[TooLarge] = refused("repeat('x', 1000)::{type}"), refused("repeat('x', 1000)::{type}")
	return out.but(others...)
}

// anyText is a type that takes every text as it is.
func anyText(others ...cells) cells {
	out := cells{}
	for _, v := range Values() {
		out[v] = same("")
	}
	out[TooLarge] = kept(rowwire.RowTooLarge)
	return out.but(append([]cells{{
		Minimum: same(`E'\x01'`), Maximum: same(`U&'\+10FFFF'`), Below: refused(`E'\x00'`), Above: refused(`U&'\+110000'`),
	}}, others...)...)
}

// shortText is one that takes none that long.
func shortText(others ...cells) cells {
	return anyText(append([]cells{{Large: refused(fmt.Sprintf("repeat('x', %d)", largeBytes)), TooLarge: refused(fmt.Sprintf("repeat('x', %d)", tooLargeBytes))}}, others...)...)
}

// list is an array type: no value has the text of a scalar.
func list(others ...cells) cells {
	return noText(append([]cells{{
		Null: is("", "[]"), EmptyArray: is("", "[]"), NullElement: kept(rowwire.NullElement),
		TwoDim: kept(rowwire.MultiDimensional), Shifted: kept(rowwire.ShiftedArray),
	}}, others...)...)
}

// of is one value in an array.
func of(element string) string { return literal(`{"` + element + `"}`) }

func floats() cells {
	return cells{NaN: same(""), Infinity: same(""), NegInfinity: same(""), DateInf: same(""), DateNegInf: same("")}
}

func numericEdges() cells {
	return cells{
		NaN: kept(rowwire.NumericNaN), Infinity: kept(rowwire.NumericInfinity), NegInfinity: kept(rowwire.NumericInfinity),
		DateInf: kept(rowwire.NumericInfinity), DateNegInf: kept(rowwire.NumericInfinity), Beyond53: same(""), E309: kept(rowwire.NumericRange),
	}
}

const (
	nines29   = "99999999999999999999999999999"
	bigMax    = "578960446186580977117854925043439539266.34992332820282019728792003956564819967"
	bigAbove  = "578960446186580977117854925043439539266.34992332820282019728792003956564819968"
	bigBelow  = "-578960446186580977117854925043439539266.34992332820282019728792003956564819969"
	int64Min  = "-9223372036854775808"
	int64Max  = "9223372036854775807"
	int64Over = "9223372036854775808"
	int64Undr = "-9223372036854775809"
)

// moments is a type with a date: what Postgres has of years that BigQuery has not.
func moments(maximum, above string) cells {
	return noText(cells{
		Minimum: same("'0001-01-01'"), Maximum: same(literal(maximum)), Below: kept(rowwire.YearRange).with("'0001-12-31 BC'"), Above: keptAs(literal(above), rowwire.YearRange),
		Infinity: kept(rowwire.TemporalInfinity), NegInfinity: kept(rowwire.TemporalInfinity),
		DateInf: kept(rowwire.TemporalInfinity), DateNegInf: kept(rowwire.TemporalInfinity),
		BC1: kept(rowwire.YearRange), Year10000: kept(rowwire.YearRange), BC: kept(rowwire.YearRange),
	})
}

func (c Cell) with(sql string) Cell {
	c.SQL = sql
	return c
}

// Types are all of the matrix.
func Types() []Type {
	out := append(numberTypes(), textTypes()...)
	out = append(out, jsonTypes()...)
	out = append(out, momentTypes()...)
	out = append(out, listTypes()...)
	return append(out, madeTypes()...)
}

func numberTypes() []Type {
	small := "INT64, NUMERIC, BIGNUMERIC, FLOAT64, STRING"
	numeric := "BIGNUMERIC, NUMERIC, INT64, FLOAT64, STRING"
	return []Type{
		{SQL: "boolean", BigQuery: "BOOL", Offered: "BOOL, STRING", cells: noText(ends("false", "true", "-1", "2"))},
		{SQL: "smallint", BigQuery: "INT64", Offered: small, cells: noText(ends("-32768", "32767", "-32769", "32768"))},
		{SQL: "integer", BigQuery: "INT64", Offered: small, cells: noText(ends("-2147483648", "2147483647", "-2147483649", "2147483648"))},
		{SQL: "bigint", BigQuery: "INT64", Offered: small, cells: noText(ends(int64Min, int64Max, int64Undr, int64Over), cells{Beyond53: same("")})},
		{SQL: "bigint", As: "NUMERIC", BigQuery: "NUMERIC", Offered: small, cells: noText(ends(int64Min, int64Max, int64Undr, int64Over), cells{Beyond53: same("")})},
		{
			SQL: "bigint", As: "FLOAT64", BigQuery: "FLOAT64", Offered: small,
			cells: noText(cells{
				Minimum: same("-9007199254740992"), Maximum: same("9007199254740992"), Below: keptAs(int64Min, rowwire.InexactFloat),
				Above: keptAs(int64Max, rowwire.InexactFloat), Beyond53: kept(rowwire.InexactFloat),
			}),
		},
		{SQL: "bigint", As: "STRING", BigQuery: "STRING", Offered: small, cells: noText(ends(int64Min, int64Max, int64Undr, int64Over), cells{Beyond53: same("")})},
		{SQL: "integer", As: "FLOAT64", BigQuery: "FLOAT64", Offered: small, cells: noText(ends("-2147483648", "2147483647", "-2147483649", "2147483648"))},
		{SQL: "oid", BigQuery: "INT64", Offered: "INT64, STRING", cells: noText(ends("0", "4294967295", "x", "4294967296"))},
		{SQL: "real", BigQuery: "FLOAT64", Offered: "FLOAT64, STRING", cells: noText(ends("-3.4028235e38", "3.4028235e38", "-3.5e38", "3.5e38"), floats(), cells{Beyond53: same("")})},
		{SQL: "double precision", BigQuery: "FLOAT64", Offered: "FLOAT64, STRING", cells: noText(ends("-1.7976931348623157e308", "1.7976931348623157e308", "-1.8e308", "1.8e308"), floats(), cells{Beyond53: same("")})},
		{SQL: "double precision", As: "STRING", BigQuery: "STRING", Offered: "FLOAT64, STRING", cells: noText(ends("-1.7976931348623157e308", "5e-324", "-1.8e308", "1.8e308"), floats(), cells{Beyond53: same("")})},
		{SQL: "numeric(38,9)", BigQuery: "NUMERIC", Offered: "NUMERIC, BIGNUMERIC, INT64, FLOAT64, STRING", cells: noText(ends("-"+nines29+".999999999", nines29+".999999999", "-1e29", "1e29"), cells{NaN: kept(rowwire.NumericNaN), Beyond53: same("")})},
		{SQL: "numeric(38,10)", BigQuery: "BIGNUMERIC", Offered: numeric, cells: noText(ends("-1e27", "0.0000000001", "-1e28", "1e28"), cells{NaN: kept(rowwire.NumericNaN), Beyond53: same("")})},
		{
			SQL: "numeric", BigQuery: "BIGNUMERIC", Offered: numeric,
			cells: noText(numericEdges(), cells{
				Minimum: same("-" + bigAbove), Maximum: same(bigMax), Below: keptAs(bigBelow, rowwire.NumericRange), Above: keptAs(bigAbove, rowwire.NumericRange),
			}),
		},
		{
			SQL: "numeric", As: "NUMERIC", BigQuery: "NUMERIC", Offered: numeric,
			cells: noText(numericEdges(), cells{
				Minimum: same("-" + nines29 + ".999999999"), Maximum: same("0.000000001"), Below: keptAs("-1e29", rowwire.NumericRange), Above: keptAs("1e-10", rowwire.NumericScale),
			}),
		},
		{
			SQL: "numeric", As: "INT64", BigQuery: "INT64", Offered: numeric,
			cells: noText(numericEdges(), cells{
				Minimum: same(int64Min), Maximum: same(int64Max), Below: keptAs(int64Undr, rowwire.NumericRange), Above: keptAs("0.5", rowwire.NumericScale),
			}),
		},
		{
			SQL: "numeric", As: "FLOAT64", BigQuery: "FLOAT64", Offered: numeric,
			cells: noText(floats(), cells{
				Minimum: same("-1.7976931348623157e308"), Maximum: same("0.1"), Below: keptAs("-1.8e308", rowwire.InexactFloat), Above: keptAs("0.123456789012345678", rowwire.InexactFloat),
				Beyond53: kept(rowwire.InexactFloat), E309: kept(rowwire.InexactFloat),
			}),
		},
		{
			SQL: "numeric", As: "STRING", BigQuery: "STRING", Offered: numeric,
			cells: noText(floats(), cells{
				Minimum: same("-1e1000"), Maximum: same("1.10"), Below: refused("-1e200000"), Above: refused("1e200000"), Beyond53: same(""), E309: same(""),
			}),
		},
		{
			SQL: "money", BigQuery: "STRING", Offered: "STRING, NUMERIC, BIGNUMERIC", Note: "the text of the server's `lc_monetary`",
			cells: noText(ends("-92233720368547758.08", "92233720368547758.07", "-92233720368547758.09", "92233720368547758.08"), cells{Empty: same(""), Beyond53: same("")}),
		},
		{
			SQL: "money", As: "NUMERIC", BigQuery: "NUMERIC", Offered: "STRING, NUMERIC, BIGNUMERIC",
			cells: noText(cells{
				Minimum: is("'-92233720368547758.08'", "-92233720368547758.08"), Maximum: is("'92233720368547758.07'", "92233720368547758.07"),
				Below: refused("'-92233720368547758.09'"), Above: refused("'92233720368547758.08'"), Empty: is("", "0"), Beyond53: is("", "9007199254740993"),
			}),
		},
	}
}

func textTypes() []Type {
	text := "STRING, JSON, BYTES"
	four := noText(cells{Empty: is("", "    "), NaN: is("", "NaN "), EmptyArray: is("", "{}  "), Minimum: is("' '", "    "), Maximum: same("'züri'"), Below: refused(`E'\x00'`), Above: refused("'züric'"), Large: refused("repeat('x', 1000)"), TooLarge: refused("repeat('x', 1000)")})
	return []Type{
		{SQL: "text", BigQuery: "STRING", Offered: text, cells: anyText()},
		{
			SQL: "text", As: "JSON", BigQuery: "JSON", Offered: text,
			cells: jsonCells("::text", cells{
				Empty: kept(rowwire.InvalidJSON), Below: keptAs("'{'", rowwire.InvalidJSON), NaN: kept(rowwire.InvalidJSON), Infinity: kept(rowwire.InvalidJSON),
				NegInfinity: kept(rowwire.InvalidJSON), DateInf: kept(rowwire.InvalidJSON), DateNegInf: kept(rowwire.InvalidJSON), Year0: kept(rowwire.InvalidJSON),
				BC1: kept(rowwire.InvalidJSON), Year10000: kept(rowwire.InvalidJSON), BC: kept(rowwire.InvalidJSON), NullElement: kept(rowwire.InvalidJSON),
				TwoDim: kept(rowwire.InvalidJSON), Shifted: kept(rowwire.InvalidJSON),
			}),
		},
		{SQL: "text", As: "BYTES", BigQuery: "BYTES", Offered: text, cells: anyText()},
		{SQL: "varchar(20)", BigQuery: "STRING", Offered: text, cells: shortText()},
		{SQL: "char(4)", BigQuery: "STRING", Offered: text, Note: "with its padding", cells: four},
		{SQL: `"char"`, BigQuery: "STRING", Offered: "STRING", cells: anyText(cells{Maximum: same("'z'"), Above: same("'zz'"), TooLarge: same("")})},
		{SQL: "name", BigQuery: "STRING", Offered: "STRING", cells: anyText(cells{TooLarge: same("")})},
		{SQL: "citext", BigQuery: "STRING", Offered: "STRING", cells: anyText()},
		{SQL: "mood", BigQuery: "STRING", Offered: "STRING", Note: "an enum: its label", cells: noText(ends("glad", "très triste", "gla", "sad"), cells{Empty: same("")})},
		{SQL: "uuid", BigQuery: "STRING", Offered: "STRING, BYTES", cells: noText(uuids())},
		{SQL: "uuid", As: "BYTES", BigQuery: "BYTES", Offered: "STRING, BYTES", cells: noText(uuids())},
		{SQL: "bytea", BigQuery: "BYTES", Offered: "BYTES, STRING", cells: anyText(ends(`\x`, `\x00ff`, `\x0`, `\xgg`), cells{Nul: refused(""), Surrogate: refused("")})},
		{SQL: "bytea", As: "STRING", BigQuery: "STRING", Offered: "BYTES, STRING", cells: anyText(ends(`\x`, `\x00ff`, `\x0`, `\xgg`), cells{
			Nul: refused(""), Surrogate: refused(""), Large: is(`decode(repeat('78', 1000), 'hex')`, `\x`+strings.Repeat("78", 1000)), TooLarge: kept(rowwire.RowTooLarge),
		})},
		{SQL: "inet", BigQuery: "STRING", Offered: "STRING", cells: noText(ends("0.0.0.0/0", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "-1.0.0.0", "256.0.0.0"))},
		{SQL: "cidr", BigQuery: "STRING", Offered: "STRING", cells: noText(ends("0.0.0.0/0", "255.255.255.255/32", "0.0.0.1/0", "10.0.0.0/33"))},
		{SQL: "macaddr", BigQuery: "STRING", Offered: "STRING", cells: noText(ends("00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff", "-1", "100:00:00:00:00:00"), cells{Year0: same(""), Year10000: same("")})},
		{SQL: "macaddr8", BigQuery: "STRING", Offered: "STRING", cells: noText(ends("00:00:00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff:ff:ff", "-1", "100:00:00:00:00:00:00:00"), cells{Beyond53: same("")})},
		{SQL: "xml", BigQuery: "STRING", Offered: "STRING", cells: anyText(ends("<a/>", "<a>&#1114111;</a>", "<a>", "<a></b>"))},
		{
			SQL: "tsvector", BigQuery: "STRING", Offered: "STRING",
			cells: anyText(ends("a", "'b c':1A,2 'd'", "'a", "a:0x"), cells{Shifted: refused(""), Large: refused(""), TooLarge: refused("")}),
		},
		{SQL: "int4range", BigQuery: "STRING", Offered: "STRING", Note: "so is every range", cells: noText(ends("(,)", "[1,10)", "[2,1)", "[1,2147483648)"), cells{Empty: same("'empty'")})},
		{SQL: "tstzrange", BigQuery: "STRING", Offered: "STRING", Note: "in UTC", cells: noText(ends("(-infinity,infinity)", "[2026-01-01 12:00+02,10000-01-01)", "[2026-01-02,2026-01-01)", "[2026-13-01,)"), cells{Empty: same("'empty'")})},
		{SQL: "int4multirange", BigQuery: "STRING", Offered: "STRING", cells: noText(ends("{(,)}", "{[1,2),[5,7)}", "{[2,1)}", "{[1,2147483648)}"), cells{EmptyArray: same("")})},
		{SQL: "bit(4)", BigQuery: "STRING", Offered: "STRING", cells: noText(ends("0000", "1111", "000", "11111"))},
		{SQL: "varbit", BigQuery: "STRING", Offered: "STRING", cells: noText(ends("0", "10101", "2", "102"), cells{Empty: same("")})},
		{SQL: "point", BigQuery: "STRING", Offered: "STRING", Note: "so is any type that is not named here: its text", cells: noText(ends("(-1e308,0.1)", "(Infinity,NaN)", "(1)", "(1e309,0)"))},
		{SQL: "int2vector", BigQuery: "STRING", Offered: "STRING", cells: noText(ends("1", "1 2 3", "x", "32768"), cells{Empty: same("")})},
	}
}

func uuids() cells {
	return ends("00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff", "fffffffffffffffffffffffffffffff", "100000000000000000000000000000000")
}

// jsonCells are those of texts of JSON; cast makes such a value of a text.
func jsonCells(cast string, others ...cells) cells {
	return noText(append([]cells{{
		Minimum: same(`'{}'`), Maximum: same(`(repeat('[', 500) || repeat(']', 500))` + cast), Below: refused("'{'"),
		Above: keptAs(`(repeat('[', 501) || repeat(']', 501))`+cast, rowwire.JSONDepth), Beyond53: same(""), E309: kept(rowwire.JSONNumber),
		Nul: kept(rowwire.JSONNul), Surrogate: kept(rowwire.JSONSurrogate), EmptyArray: same(""),
		Large: same(fmt.Sprintf("to_json(repeat('x', %d))%s", largeBytes, cast)), TooLarge: keptAs(fmt.Sprintf("to_json(repeat('x', %d))%s", tooLargeBytes, cast), rowwire.RowTooLarge),
	}}, others...)...)
}

func jsonTypes() []Type {
	return []Type{
		{SQL: "json", BigQuery: "JSON", Offered: "JSON, STRING", Note: "its value; white space and the order of keys are not part of it", cells: jsonCells("::json")},
		{SQL: "json", As: "STRING", BigQuery: "STRING", Offered: "JSON, STRING", cells: jsonCells("::json", cells{
			Above: same(`(repeat('[', 501) || repeat(']', 501))::json`), E309: same(""), Nul: same(""), Surrogate: same(""),
		})},
		{SQL: "jsonb", BigQuery: "JSON", Offered: "JSON, STRING", cells: jsonCells("::jsonb", cells{Nul: refused(""), Surrogate: refused("")})},
		{SQL: "jsonb", As: "STRING", BigQuery: "STRING", Offered: "JSON, STRING", cells: jsonCells("::jsonb", cells{
			Above: same(`(repeat('[', 501) || repeat(']', 501))::jsonb`), E309: same(""), Nul: refused(""), Surrogate: refused(""),
		})},
	}
}

func momentTypes() []Type {
	infinite := Cell{Refused: true, Quarantined: rowwire.TemporalInfinity}
	intervals := noText(cells{
		Minimum: same("'-178000000 years -2147483648 days -2562047788:00:54.775807'"), Maximum: same("'178000000 years 2147483647 days 2562047788:00:54.775807'"),
		Below: refused("'-178956971 years'"), Above: refused("'178956971 years'"), Infinity: infinite, NegInfinity: infinite, DateInf: infinite, DateNegInf: infinite,
	})
	return []Type{
		{SQL: "date", BigQuery: "DATE", Offered: "DATE, STRING", cells: moments("9999-12-31", "5874897-12-31")},
		{SQL: "time", BigQuery: "TIME", Offered: "TIME, STRING", cells: noText(ends("00:00:00", "23:59:59.999999", "-00:00:01", "24:00:01"), cells{Above: keptAs("'24:00:00'", rowwire.EndOfDay)})},
		{SQL: "timetz", BigQuery: "STRING", Offered: "STRING", cells: noText(ends("00:00:00+15:59", "24:00:00-15:59", "00:00:00+16", "24:00:01+00"))},
		{SQL: "timestamp", BigQuery: "DATETIME", Offered: "DATETIME, TIMESTAMP, STRING", cells: moments("9999-12-31 23:59:59.999999", "294276-12-31 23:59:59.999999")},
		{SQL: "timestamp", As: "TIMESTAMP", BigQuery: "TIMESTAMP", Offered: "DATETIME, TIMESTAMP, STRING", Note: "declares the values to be in UTC", cells: moments("9999-12-31 23:59:59.999999", "294276-12-31 23:59:59.999999")},
		{SQL: "timestamptz", BigQuery: "TIMESTAMP", Offered: "TIMESTAMP, DATETIME, STRING", cells: moments("9999-12-31 23:59:59.999999+00", "9999-12-31 23:59:59-01")},
		{SQL: "timestamptz", As: "DATETIME", BigQuery: "DATETIME", Offered: "TIMESTAMP, DATETIME, STRING", Note: "in UTC", cells: moments("9999-12-31 23:59:59.999999+00", "9999-12-31 23:59:59-01")},
		{SQL: "interval", BigQuery: "STRING", Offered: "STRING, INTERVAL", Note: "ISO 8601", cells: intervals},
		{
			SQL: "interval", As: "INTERVAL", BigQuery: "INTERVAL", Offered: "STRING, INTERVAL", Wire: true,
			cells: intervals.but(cells{
				Minimum: is("'-10000 years -3660000 days -87840000:00'", "-10000-0 -3660000 -87840000:0:0"), Maximum: is("'1 year 1 mon 1 day -00:00:01.5'", "1-1 1 -0:0:1.5"),
				Below: keptAs("'-10000 years -1 month'", rowwire.IntervalRange), Above: keptAs("'3660001 days'", rowwire.IntervalRange),
			}),
		},
	}
}

func listTypes() []Type {
	integers := "ARRAY<INT64>, ARRAY<NUMERIC>, ARRAY<BIGNUMERIC>, ARRAY<FLOAT64>, JSON, STRING"
	texts := "ARRAY<STRING>, ARRAY<JSON>, ARRAY<BYTES>, JSON, STRING"
	numerics := "ARRAY<NUMERIC>, ARRAY<BIGNUMERIC>, ARRAY<INT64>, ARRAY<FLOAT64>, JSON, STRING"
	whole := cells{
		Null: same(""), EmptyArray: is("", "[]"), NullElement: is("", "[null]"), TwoDim: is("", "[[1,2],[3,4]]"), Shifted: is("", `"[5:6]={1,2}"`),
		Minimum: is("'{{-2147483648}}'", "[[-2147483648]]"), Maximum: is("'{2147483647,NULL}'", "[2147483647,null]"), Below: refused("'{-2147483649}'"), Above: refused("'{2147483648}'"),
	}
	strs := cells{
		NullElement: is("", "[null]"), TwoDim: is("", `[["1","2"],["3","4"]]`), Shifted: is("'[10:11]={1,2}'", `"[10:11]={1,2}"`),
		Minimum: is(`'{""}'`, `[""]`), Maximum: is(`'{"a\"b",NULL,"NULL"}'`, `["a\"b",null,"NULL"]`), Below: refused(`'{"}'`), Above: refused(`'{a}}'`),
		Large: same(fmt.Sprintf("ARRAY[repeat('x', %d)]", largeBytes)), TooLarge: keptAs(fmt.Sprintf("ARRAY[repeat('x', %d)]", tooLargeBytes), rowwire.RowTooLarge),
	}
	textList := list(strs, cells{
		NullElement: kept(rowwire.NullElement), TwoDim: kept(rowwire.MultiDimensional), Shifted: kept(rowwire.ShiftedArray),
		Minimum: is(`'{""}'`, `[""]`), Maximum: is(`'{"a\"b","NULL"}'`, `["a\"b", "NULL"]`),
	})
	price := list(cells{
		Minimum: is("'{0.10}'", "[0.1]"), Maximum: is("'{9999999999.99,1}'", "[9999999999.99, 1]"), Below: refused("'{x}'"), Above: refused("'{1e10}'"), NaN: keptAs(of("NaN"), rowwire.NumericNaN),
	})
	return []Type{
		{SQL: "integer[]", BigQuery: "ARRAY<INT64>", Offered: integers, cells: list(cells{
			Minimum: is("'{-2147483648,0}'", "[-2147483648, 0]"), Maximum: is("'{2147483647}'", "[2147483647]"), Below: refused("'{-2147483649}'"), Above: refused("'{2147483648}'"),
		})},
		{SQL: "integer[]", As: "JSON", BigQuery: "JSON", Offered: integers, Note: "an array whose subscripts do not begin at 1 is a JSON string of its text", cells: noText(whole)},
		{SQL: "integer[]", As: "STRING", BigQuery: "STRING", Offered: integers, cells: noText(cells{
			EmptyArray: same(""), NullElement: same(""), TwoDim: same(""), Shifted: same(""), Minimum: same("'{{-2147483648}}'"), Maximum: same("'{2147483647,NULL}'"), Below: refused("'{-2147483649}'"), Above: refused("'{2147483648}'"),
		})},
		{SQL: "integer[]", As: "NUMERIC", BigQuery: "ARRAY<NUMERIC>", Offered: integers, cells: list(cells{
			Minimum: is("'{-2147483648,0}'", "[-2147483648, 0]"), Maximum: is("'{2147483647}'", "[2147483647]"), Below: refused("'{-2147483649}'"), Above: refused("'{2147483648}'"),
		})},
		{SQL: "integer[][]", BigQuery: "JSON", Offered: "JSON, STRING", cells: noText(whole)},
		{SQL: "text[]", BigQuery: "ARRAY<STRING>", Offered: texts, cells: textList},
		{SQL: "text[]", As: "JSON", BigQuery: "JSON", Offered: texts, cells: noText(whole, strs, cells{Large: is(fmt.Sprintf("ARRAY[repeat('x', %d)]", largeBytes), `["`+strings.Repeat("x", largeBytes)+`"]`)})},
		{SQL: "numeric(12,2)[]", BigQuery: "ARRAY<NUMERIC>", Offered: numerics, cells: price},
		{SQL: "timestamptz[]", BigQuery: "ARRAY<TIMESTAMP>", Offered: "ARRAY<TIMESTAMP>, ARRAY<DATETIME>, JSON, STRING", cells: list(cells{
			Minimum: is("'{0001-01-01 00:00:00+00}'", "[0001-01-01 00:00:00+00]"), Maximum: is("'{9999-12-31 23:59:59.999999+00}'", "[9999-12-31 23:59:59.999999+00]"),
			Below: keptAs(of("0001-12-31 BC"), rowwire.YearRange), Above: keptAs(of("9999-12-31 23:59:59-01"), rowwire.YearRange), DateInf: keptAs(of("infinity"), rowwire.TemporalInfinity),
			DateNegInf: keptAs(of("-infinity"), rowwire.TemporalInfinity), Year10000: keptAs(of("10000-01-01"), rowwire.YearRange), BC: keptAs(of("0044-03-15 BC"), rowwire.YearRange),
			TwoDim: keptAs("'{{2026-01-01},{2026-01-02}}'", rowwire.MultiDimensional), Shifted: keptAs("'[5:5]={2026-01-01}'", rowwire.ShiftedArray),
		})},
		{SQL: "interval[]", BigQuery: "ARRAY<STRING>", Offered: "ARRAY<STRING>, ARRAY<INTERVAL>, JSON, STRING", Note: "ISO 8601", cells: list(cells{
			Minimum: is("'{-1 mon,0}'", `["P-1M", "PT0S"]`), Maximum: is("'{1 year 2 mons 3 days -4:05:06.7}'", `["P1Y2M3DT-4H-5M-6.7S"]`), Below: refused(of("-178956971 years")), Above: refused(of("178956971 years")),
		})},
		{SQL: "jsonb[]", BigQuery: "ARRAY<JSON>", Offered: "ARRAY<JSON>, JSON, STRING", cells: list(cells{
			Minimum: is(`'{"null"}'`, "[null]"), Maximum: is(`'{"{\"a\": [1]}"}'`, `[{"a":[1]}]`), Below: refused(`'{"{"}'`), Above: refused("'{a}'"),
			Beyond53: is("'{9007199254740993}'", "[9007199254740993]"), E309: keptAs("'{1e309}'", rowwire.JSONNumber),
		})},
		{SQL: "inet[]", BigQuery: "ARRAY<STRING>", Offered: "ARRAY<STRING>, JSON, STRING", cells: list(cells{
			Minimum: is("'{0.0.0.0/0}'", `["0.0.0.0/0"]`), Maximum: is("'{ffff::1,10.0.0.1}'", `["ffff::1/128", "10.0.0.1/32"]`), Below: refused("'{256.0.0.0}'"), Above: refused("'{10.0.0.0/33}'"),
			TwoDim: keptAs("'{{10.0.0.1},{10.0.0.2}}'", rowwire.MultiDimensional), Shifted: keptAs("'[5:5]={10.0.0.1}'", rowwire.ShiftedArray),
		})},
		{SQL: "price[]", BigQuery: "ARRAY<BIGNUMERIC>", Offered: "ARRAY<BIGNUMERIC>, ARRAY<NUMERIC>, ARRAY<INT64>, ARRAY<FLOAT64>, JSON, STRING", Note: "an array of a domain", cells: price.but(cells{Below: refused("'{-1}'")})},
		{SQL: "tags", BigQuery: "ARRAY<STRING>", Offered: texts, Note: "a domain over an array", cells: textList},
		{SQL: "tags[]", BigQuery: "JSON", Offered: "JSON, STRING", Note: "an array of a domain over arrays", cells: noText(cells{
			Null: same(""), EmptyArray: is("", "[]"), NullElement: is("", "[null]"), TwoDim: is(`'{"{1,2}","{3}"}'`, `[["1","2"],["3"]]`), Shifted: is(`'[5:5]={"{1}"}'`, `"[5:5]={\"{1}\"}"`),
			Minimum: is(`'{"{}"}'`, "[[]]"), Maximum: is(`'{"{a,NULL}"}'`, `[["a",null]]`), Below: refused(`'{"{"}'`), Above: refused("'{a}'"),
		})},
	}
}

// madeTypes are those that are made of others, and those of extensions.
func madeTypes() []Type {
	object := func(v string) Cell { return is("'a=>"+v+"'", `{"a":"`+v+`"}`) }
	return []Type{
		{SQL: "price", BigQuery: "NUMERIC", Offered: "NUMERIC, BIGNUMERIC, INT64, FLOAT64, STRING", Note: "a domain: as its base", cells: noText(ends("0", "9999999999.99", "-1", "1e10"), cells{NaN: kept(rowwire.NumericNaN)})},
		{SQL: "pair", BigQuery: "JSON", Offered: "JSON, STRING", Note: "a composite type", cells: noText(cells{
			Minimum: is("'(,)'", `{"j":null,"n":null}`), Maximum: is(`'(1.50,"{""a"": [1]}")'`, `{"j":{"a":[1]},"n":1.5}`), Below: refused("'(1)'"), Above: refused("'(1,2,3)'"),
			NaN: is("'(NaN,)'", `{"j":null,"n":"NaN"}`), Infinity: is("'(Infinity,)'", `{"j":null,"n":"Infinity"}`), NegInfinity: is("'(-Infinity,)'", `{"j":null,"n":"-Infinity"}`),
			Beyond53: is("'(9007199254740993,)'", `{"j":null,"n":9007199254740993}`), E309: keptAs("'(1e309,)'", rowwire.JSONNumber),
			Nul: keptAs(`'(,"""\\u0000""")'`, rowwire.JSONNul), Surrogate: keptAs(`'(,"""\\ud800""")'`, rowwire.JSONSurrogate),
			Large:    is("ROW(NULL, to_json(repeat('x', 1000)))::pair", `{"j":"`+strings.Repeat("x", 1000)+`","n":null}`),
			TooLarge: keptAs(fmt.Sprintf("ROW(NULL, to_json(repeat('x', %d)))::pair", tooLargeBytes), rowwire.RowTooLarge),
		})},
		{SQL: "pair[]", BigQuery: "JSON", Offered: "JSON, STRING", cells: noText(cells{
			Null: same(""), EmptyArray: is("", "[]"), NullElement: is("", "[null]"), TwoDim: is(`'{{"(1,)"},{"(2,)"}}'`, `[[{"j":null,"n":1}],[{"j":null,"n":2}]]`),
			Shifted: is(`'[5:5]={"(1,)"}'`, `"[5:5]={\"(1,)\"}"`), Minimum: is(`'{"(,)"}'`, `[{"j":null,"n":null}]`), Maximum: is(`'{"(1,2)"}'`, `[{"j":2,"n":1}]`), Below: refused(`'{"(1)"}'`), Above: refused("'{1}'"),
		})},
		{SQL: "hstore", BigQuery: "JSON", Offered: "JSON, STRING", cells: noText(cells{
			Empty: is("", "{}"), Minimum: is("'a=>NULL'", `{"a":null}`), Maximum: is(`'"a\"b"=>"", c=>"1"'`, `{"a\"b":"","c":"1"}`), Below: refused("'a'"), Above: refused("'a=>'"),
			NaN: object("NaN"), Infinity: object("Infinity"), Beyond53: object("9007199254740993"), E309: object("1e309"),
			Large:    is("hstore('a', repeat('x', 1000))", `{"a":"`+strings.Repeat("x", 1000)+`"}`),
			TooLarge: keptAs(fmt.Sprintf("hstore('a', repeat('x', %d))", tooLargeBytes), rowwire.RowTooLarge),
		})},
		{SQL: "vector", BigQuery: "ARRAY<FLOAT64>", Offered: "ARRAY<FLOAT64>, JSON, STRING", Check: `v::text LIKE '[%' AND cardinality(v::real[]) >= 0`, Note: "pgvector; halfvec too; sparsevec is STRING", cells: noText(cells{
			Null: is("", "[]"), Minimum: is("'[0.1]'", "[0.10000000149011612]"), Maximum: is("'[1,-2.5,3e38]'", "[1, -2.5, 3.0000000054977558e+38]"), Below: refused("'[x]'"), Above: refused("'[1e39]'"),
			EmptyArray: is("'[]'", "[]"),
			NaN:        is("'[NaN]'", "[NaN]"),
		})},
		{
			SQL: "geography", BigQuery: "GEOGRAPHY", Offered: "GEOGRAPHY, STRING", Wire: true, Check: "v::text ~ '^(SRID=[0-9]+;)?[A-Z]+[ (]'",
			Note: "PostGIS; BigQuery keeps coordinates to about a nanometre; geometry(Point or MultiPoint, 4326) too; any other geometry is STRING, and GEOGRAPHY by `as:`, which makes its edges geodesics",
			cells: noText(cells{
				Empty: is("'SRID=4326;POINT EMPTY'", "POINT EMPTY"), Minimum: is("'SRID=4326;POINT(-180 -90)'", "POINT(-180 -90)"), Maximum: is("'SRID=4326;LINESTRING(180 90,1.5 0.1)'", "LINESTRING(180 90,1.5 0.1)"),
				Below: keptAs("'SRID=4326;POINT(-180.1 0)'", rowwire.GeographyRange), Above: keptAs("'SRID=4326;POINT(0 90.1)'", rowwire.GeographyRange),
				NaN: keptAs("'SRID=4326;POINT(NaN NaN)'", rowwire.GeographyShape), TwoDim: keptAs("'SRID=4326;POINT(1 2 3)'", rowwire.GeographyShape), Shifted: keptAs("'SRID=3857;POINT(1 2)'", rowwire.GeographySRID),
			}),
		},
	}
}

// Name is a column name, and whether BigQuery can have it.
type Name struct {
	Column  string
	Refused bool
}

// Names are odd column names of every kind.
func Names() []Name {
	var out []Name
	for _, name := range []string{
		"select", "GROUP", "Mixed Case", "with space", " leading", "it's", "a:b", "a-b", "a+b=c<d>e&f#g%h|i", "größe", "数量", "1st", "123", "_leading", "__two", "null", "true",
		strings.Repeat("é", 31) + "x", strings.Repeat("n", 63), "column_1", "id2",
	} {
		out = append(out, Name{Column: name})
	}
	for _, name := range []string{
		`quote"d`, "back`tick", "dot.ted", `back\slash`, "a/b", "a,b", "a;b", "a(b)", "a[b]", "a{b}", "a*b", "a?b", "a@b", "a!b", "a$b", "a^b", "a~b",
		"_PARTITIONTIME", "_partition_x", "_TABLE_SUFFIX", "_FILE_NAME", "_ROW_TIMESTAMP_", "__ROOT__x", "_colidentifier_1", "_CHANGE_TYPE", "_CHANGE_SEQUENCE_NUMBER", "_CHANGE_TIMESTAMP",
		"_version", "_Synced_At", "_deleted", "ID",
	} {
		out = append(out, Name{Column: name, Refused: true})
	}
	return out
}
