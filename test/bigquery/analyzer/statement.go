//go:build googlesql

package analyzer

import (
	"fmt"
	"strings"

	"github.com/goccy/go-googlesql"
)

// outputs is what statements with a result have in common.
type outputs interface {
	OutputColumnList() ([]*googlesql.ResolvedOutputColumn, error)
}

// typeNamer is what every concrete type has, though the binding's type
// interface does not list it.
type typeNamer interface {
	TypeName(mode googlesql.ProductMode) (string, error)
}

func (e *engine) describe(stmt googlesql.ResolvedStatementNode) (Result, error) {
	kind, err := statementType(stmt)
	if err != nil {
		return Result{}, err
	}
	r := Result{Kind: kind, Tables: e.tables.referenced()}
	with, ok := stmt.(outputs)
	if !ok {
		return r, nil
	}
	list, err := with.OutputColumnList()
	if err != nil {
		return Result{}, fmt.Errorf("reading output columns: %w", err)
	}
	unnamed := 0
	for i, o := range list {
		col, err := outputColumn(i, o)
		if err != nil {
			return Result{}, err
		}
		// GoogleSQL calls unnamed columns $col1; BigQuery's results count them
		// from f0_.
		if col.Name == "" || strings.HasPrefix(col.Name, "$") {
			col.Name = fmt.Sprintf("f%d_", unnamed)
			unnamed++
		}
		r.Columns = append(r.Columns, col)
	}
	return r, nil
}

func outputColumn(i int, o *googlesql.ResolvedOutputColumn) (Column, error) {
	name, err := o.Name()
	if err != nil {
		return Column{}, fmt.Errorf("reading name of column %d: %w", i, err)
	}
	rc, err := o.Column()
	if err != nil {
		return Column{}, fmt.Errorf("reading column %d: %w", i, err)
	}
	t, err := rc.Type()
	if err != nil {
		return Column{}, fmt.Errorf("reading type of column %d: %w", i, err)
	}
	named, ok := t.(typeNamer)
	if !ok {
		return Column{}, fmt.Errorf("naming type of column %d: %T has no name", i, t)
	}
	text, err := named.TypeName(googlesql.ProductModeProductExternal)
	if err != nil {
		return Column{}, fmt.Errorf("naming type of column %d: %w", i, err)
	}
	return Column{Name: name, Type: text}, nil
}

// statementType names a statement as BigQuery's job statistics do.
func statementType(stmt googlesql.ResolvedStatementNode) (string, error) {
	switch s := stmt.(type) {
	case *googlesql.ResolvedQueryStmt:
		return "SELECT", nil
	case *googlesql.ResolvedInsertStmt:
		return "INSERT", nil
	case *googlesql.ResolvedUpdateStmt:
		return "UPDATE", nil
	case *googlesql.ResolvedDeleteStmt:
		return "DELETE", nil
	case *googlesql.ResolvedMergeStmt:
		return "MERGE", nil
	case *googlesql.ResolvedTruncateStmt:
		return "TRUNCATE_TABLE", nil
	case *googlesql.ResolvedCreateTableAsSelectStmt:
		return "CREATE_TABLE_AS_SELECT", nil
	case *googlesql.ResolvedCreateTableStmt:
		return "CREATE_TABLE", nil
	case *googlesql.ResolvedCreateViewStmt:
		return "CREATE_VIEW", nil
	case *googlesql.ResolvedCreateMaterializedViewStmt:
		return "CREATE_MATERIALIZED_VIEW", nil
	case *googlesql.ResolvedDropStmt:
		object, err := s.ObjectType()
		if err != nil {
			return "", fmt.Errorf("reading what is dropped: %w", err)
		}
		return "DROP_" + strings.ReplaceAll(strings.ToUpper(object), " ", "_"), nil
	}
	kind, err := stmt.NodeKindString()
	if err != nil {
		return "", fmt.Errorf("reading statement kind: %w", err)
	}
	switch kind {
	case "AlterTableSetOptionsStmt", "ResolvedAlterTableSetOptionsStmt":
		return "ALTER_TABLE", nil
	case "BeginStmt", "CommitStmt", "RollbackStmt":
		return upperSnake(strings.TrimSuffix(kind, "Stmt")) + "_TRANSACTION", nil
	}
	return upperSnake(strings.TrimSuffix(strings.TrimPrefix(kind, "Resolved"), "Stmt")), nil
}

// upperSnake turns AlterTable into ALTER_TABLE.
func upperSnake(name string) string {
	var b strings.Builder
	for i, r := range name {
		if i > 0 && r >= 'A' && r <= 'Z' {
			b.WriteByte('_')
		}
		b.WriteRune(r)
	}
	return strings.ToUpper(b.String())
}
