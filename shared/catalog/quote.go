package catalog

import "strings"

// Quote writes an identifier so that Postgres reads exactly that name. It is
// the only place where names enter SQL for Postgres.
func Quote(name string) string {
	return `"` + strings.ReplaceAll(name, `"`, `""`) + `"`
}

// QuoteAll quotes every name.
func QuoteAll(names []string) []string {
	out := make([]string, len(names))
	for i, name := range names {
		out[i] = Quote(name)
	}
	return out
}
