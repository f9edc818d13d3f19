package main

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// table prints rows below their heads, in columns as psql has them.
func (t *tool) table(rows [][]string) {
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			row[i] = printable(cell)
			widths[i] = max(widths[i], utf8.RuneCountInString(row[i]))
		}
	}
	rules := make([]string, len(widths))
	for i, width := range widths {
		rules[i] = strings.Repeat("-", width+2)
	}
	for n, row := range rows {
		cells := make([]string, len(row))
		for i, cell := range row {
			cells[i] = fmt.Sprintf(" %-*s ", widths[i], cell)
		}
		t.print(t.out, "%s\n", strings.TrimRight(strings.Join(cells, "|"), " "))
		if n == 0 {
			t.print(t.out, "%s\n", strings.Join(rules, "+"))
		}
	}
	t.print(t.out, "(%d rows)\n", len(rows)-1)
}

// printable is a text on one line, without what a terminal would take for orders.
func printable(text string) string {
	var b strings.Builder
	for _, r := range text {
		if unicode.IsPrint(r) {
			b.WriteRune(r)
			continue
		}
		b.WriteString(strings.Trim(strconv.QuoteRune(r), "'"))
	}
	return b.String()
}
