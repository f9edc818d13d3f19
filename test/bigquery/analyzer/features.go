//go:build googlesql

package analyzer

import (
	"fmt"

	"github.com/goccy/go-googlesql"
)

// newLanguage is GoogleSQL as BigQuery speaks it: every released feature less
// those that belong to other engines, in external product mode (INT64 and
// FLOAT64 only, BigQuery's type names).
func newLanguage() (*googlesql.LanguageOptions, error) {
	lang, err := googlesql.NewLanguageOptions()
	if err != nil {
		return nil, fmt.Errorf("creating language options: %w", err)
	}
	if err := lang.EnableMaximumLanguageFeatures(); err != nil {
		return nil, fmt.Errorf("enabling features: %w", err)
	}
	for _, f := range notInBigQuery() {
		if err := lang.DisableLanguageFeature(f); err != nil {
			return nil, fmt.Errorf("disabling feature %v: %w", f, err)
		}
	}
	for _, f := range alsoInBigQuery() {
		if err := lang.EnableLanguageFeature(f); err != nil {
			return nil, fmt.Errorf("enabling feature %v: %w", f, err)
		}
	}
	if err := lang.SetProductMode(googlesql.ProductModeProductExternal); err != nil {
		return nil, fmt.Errorf("setting product mode: %w", err)
	}
	if err := lang.SetNameResolutionMode(googlesql.NameResolutionModeNameResolutionDefault); err != nil {
		return nil, fmt.Errorf("setting name resolution: %w", err)
	}
	if err := lang.SetSupportsAllStatementKinds(); err != nil {
		return nil, fmt.Errorf("enabling statements: %w", err)
	}
	// QUALIFY is reserved in BigQuery: without it `QUALIFY` after FROM t would
	// parse as an alias.
	if err := lang.EnableReservableKeyword("QUALIFY", true); err != nil {
		return nil, fmt.Errorf("reserving QUALIFY: %w", err)
	}
	return lang, nil
}

// notInBigQuery lists released GoogleSQL features that BigQuery does not have.
func notInBigQuery() []googlesql.LanguageFeature {
	return []googlesql.LanguageFeature{
		googlesql.LanguageFeatureFeatureTimestampNanos, // TIMESTAMP has microseconds
		googlesql.LanguageFeatureFeatureTimestampPicos,
		googlesql.LanguageFeatureFeatureArrayEquality, // "not defined for arguments of type ARRAY"
		googlesql.LanguageFeatureFeatureArrayOrdering,
		googlesql.LanguageFeatureFeatureJsonTypeComparison, // "not defined for arguments of type JSON"
		googlesql.LanguageFeatureFeatureAllowSlashPaths,
		googlesql.LanguageFeatureFeatureDisallowGroupByFloat,
		googlesql.LanguageFeatureFeatureProtoBase,
		googlesql.LanguageFeatureFeatureProtoMaps,
		googlesql.LanguageFeatureFeatureExtractFromProto,
		googlesql.LanguageFeatureFeatureReplaceFields,
		googlesql.LanguageFeatureFeatureFilterFields,
		googlesql.LanguageFeatureFeatureBracedProtoConstructors,
		googlesql.LanguageFeatureFeatureSpannerLegacyDdl,
		googlesql.LanguageFeatureFeatureTtl,
		googlesql.LanguageFeatureFeatureOrderedPrimaryKeys,
		googlesql.LanguageFeatureFeatureTokenizedSearch,
		googlesql.LanguageFeatureFeatureGeneratedColumns,
		googlesql.LanguageFeatureFeatureIdentityColumns,
		googlesql.LanguageFeatureFeatureDmlReturning,
		googlesql.LanguageFeatureFeatureCheckConstraint,
		googlesql.LanguageFeatureFeatureStructPositionalAccessor,
		googlesql.LanguageFeatureFeatureBareArrayAccess,
		googlesql.LanguageFeatureFeatureTopLevelTableStatements,
		googlesql.LanguageFeatureFeatureDisallowNullPrimaryKeys,
		googlesql.LanguageFeatureFeatureDisallowPrimaryKeyUpdates,
		googlesql.LanguageFeatureFeatureEncryption,
	}
}

// alsoInBigQuery lists what BigQuery has although it is not in every engine's
// released set.
func alsoInBigQuery() []googlesql.LanguageFeature {
	return []googlesql.LanguageFeature{
		googlesql.LanguageFeatureFeatureAlterColumnSetDataType,
		googlesql.LanguageFeatureFeatureAlterTableRenameColumn,
		googlesql.LanguageFeatureFeatureQualify,
		googlesql.LanguageFeatureFeatureAllowDashesInTableName,
		googlesql.LanguageFeatureFeatureIntervalType,
		googlesql.LanguageFeatureFeatureRangeType,
		googlesql.LanguageFeatureFeatureUnenforcedPrimaryKeys,
		googlesql.LanguageFeatureFeatureDmlUpdateWithJoin,
		googlesql.LanguageFeatureFeatureEnforceMicrosModeInIntervalType,
		googlesql.LanguageFeatureFeatureJsonStrictNumberParsing,
	}
}
