//go:build googlesql

package analyzer

import (
	"fmt"
	"strings"

	"github.com/goccy/go-googlesql"
)

// newBuiltins returns a catalog of the functions that BigQuery has, and the
// catalog of all of GoogleSQL's that owns them.
func newBuiltins(lang *googlesql.LanguageOptions, factory *googlesql.TypeFactory) (bigquery, all *googlesql.SimpleCatalog, err error) {
	all, err = googlesql.NewSimpleCatalog("all", factory)
	if err != nil {
		return nil, nil, fmt.Errorf("creating catalog: %w", err)
	}
	if err := all.AddBuiltinFunctionsAndTypes(&googlesql.BuiltinFunctionOptions{LanguageOptions: lang}); err != nil {
		return nil, nil, fmt.Errorf("adding built-in functions: %w", err)
	}
	bigquery, err = googlesql.NewSimpleCatalog("builtins", factory)
	if err != nil {
		return nil, nil, fmt.Errorf("creating catalog: %w", err)
	}
	if err := addFunctions(bigquery, all); err != nil {
		return nil, nil, err
	}
	return bigquery, all, addCatalogs(bigquery, all)
}

func addFunctions(to, from *googlesql.SimpleCatalog) error {
	functions, err := from.Functions()
	if err != nil {
		return fmt.Errorf("listing functions: %w", err)
	}
	skip := map[string]bool{}
	for _, name := range strings.Fields(notBigQueryFunctions) {
		skip[name] = true
	}
	for _, f := range functions {
		name, err := f.Name()
		if err != nil {
			return fmt.Errorf("naming function: %w", err)
		}
		// A function with an alias (SUBSTR, SUBSTRING) is listed under both, and
		// brings both; adding it twice would abort the engine.
		if skip[strings.ToLower(name)] {
			continue
		}
		skip[strings.ToLower(name)] = true
		if err := to.AddFunction(f); err != nil {
			return fmt.Errorf("adding function %s: %w", name, err)
		}
	}
	return nil
}

// addCatalogs adds the families such as NET.HOST and HLL_COUNT.INIT.
func addCatalogs(to, from *googlesql.SimpleCatalog) error {
	names, err := from.CatalogNames()
	if err != nil {
		return fmt.Errorf("listing function families: %w", err)
	}
	families, err := from.Catalogs()
	if err != nil {
		return fmt.Errorf("listing function families: %w", err)
	}
	if len(names) != len(families) {
		return fmt.Errorf("listing function families: %d names of %d", len(names), len(families))
	}
	for _, family := range families {
		if err := to.AddCatalog(family); err != nil {
			return fmt.Errorf("adding function family: %w", err)
		}
	}
	return nil
}

// notBigQueryFunctions are GoogleSQL functions that BigQuery's reference does
// not have. https://cloud.google.com/bigquery/docs/reference/standard-sql/functions-all
const notBigQueryFunctions = ` agg all_different apply approx_cosine_distance approx_dot_product approx_euclidean_distance
 array_avg array_distinct array_filter array_find array_find_all array_first_n array_includes array_includes_all array_includes_any
 array_is_distinct array_last_n array_max array_min array_offset array_offsets array_remove_first_n array_remove_last_n array_sum
 array_transform array_zip destination_node_id edges element_definition_name element_id elementwise_avg elementwise_sum
 float32 float32_array is_acyclic is_dest_node is_first is_last is_simple is_source_node is_trail iserror iferror nulliferror
 json_contains l1_norm l2_norm labels lax_float32 lax_float32_array manhattan_distance new_uuid nodes nullifzero path path_concat path_first path_last
 path_length pi pi_bignumeric pi_numeric property_exists property_names regexp_extract_groups same source_node_id split_substr
 timestamp_from_unix_micros timestamp_from_unix_millis timestamp_from_unix_seconds to_seconds_interval zeroifnull zstd_compress
 zstd_decompress_to_bytes zstd_decompress_to_string `
