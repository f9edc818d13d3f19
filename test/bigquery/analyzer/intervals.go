//go:build googlesql

package analyzer

import (
	"fmt"
	"strings"

	"github.com/goccy/go-googlesql"
)

// checkIntervals refuses TIMESTAMP +/- INTERVAL n MONTH and the like. BigQuery
// fails there when it runs ("not supported .. non-zero MONTH or YEAR part"), and
// the analyzer does not look. TIMESTAMP_ADD and TIMESTAMP_SUB it checks itself.
func checkIntervals(sql string, node googlesql.ResolvedNode) error {
	if call, ok := node.(*googlesql.ResolvedFunctionCall); ok {
		return checkCall(sql, call)
	}
	// The search does not look inside what it finds.
	calls, err := node.GetDescendantsWithKinds([]googlesql.ResolvedNodeKind{googlesql.ResolvedNodeKindResolvedFunctionCall})
	if err != nil {
		return fmt.Errorf("listing function calls: %w", err)
	}
	for _, n := range calls {
		if call, ok := n.(*googlesql.ResolvedFunctionCall); ok {
			if err := checkCall(sql, call); err != nil {
				return err
			}
		}
	}
	return nil
}

func checkCall(sql string, call *googlesql.ResolvedFunctionCall) error {
	part, err := calendarShift(call)
	if err != nil {
		return err
	}
	if part != "" {
		line, column := lineColumn(sql, call)
		return &Error{Message: "TIMESTAMP +/- INTERVAL is not supported for intervals with non-zero MONTH or YEAR part", Line: line, Column: column}
	}
	children, err := call.GetChildNodes()
	if err != nil {
		return fmt.Errorf("listing arguments: %w", err)
	}
	for _, child := range children {
		if err := checkIntervals(sql, child); err != nil {
			return err
		}
	}
	return nil
}

// calendarShift returns MONTH, QUARTER or YEAR where a call adds such an
// interval to a TIMESTAMP.
func calendarShift(call *googlesql.ResolvedFunctionCall) (string, error) {
	name, args, err := callParts(call)
	if err != nil || name != "$add" && name != "$subtract" || len(args) != 2 {
		return "", err
	}
	for i, arg := range args {
		t, err := args[1-i].Type()
		if err != nil {
			return "", fmt.Errorf("reading argument type: %w", err)
		}
		kind, err := t.Kind()
		if err != nil {
			return "", fmt.Errorf("reading argument type: %w", err)
		}
		inner, ok := arg.(*googlesql.ResolvedFunctionCall)
		if !ok || kind != googlesql.TypeKindTypeTimestamp {
			continue
		}
		if part, err := intervalPart(inner); part != "" || err != nil {
			return part, err
		}
	}
	return "", nil
}

func intervalPart(call *googlesql.ResolvedFunctionCall) (string, error) {
	name, args, err := callParts(call)
	if err != nil || name != "$interval" || len(args) != 2 {
		return "", err
	}
	literal, ok := args[1].(*googlesql.ResolvedLiteral)
	if !ok {
		return "", nil
	}
	v, err := literal.Value()
	if err != nil {
		return "", fmt.Errorf("reading date part: %w", err)
	}
	part, err := v.EnumDisplayName()
	if err != nil {
		return "", fmt.Errorf("reading date part: %w", err)
	}
	if part == "MONTH" || part == "QUARTER" || part == "YEAR" {
		return part, nil
	}
	return "", nil
}

func callParts(call *googlesql.ResolvedFunctionCall) (string, []googlesql.ResolvedExprNode, error) {
	f, err := call.Function()
	if err != nil {
		return "", nil, fmt.Errorf("reading called function: %w", err)
	}
	name, err := f.Name()
	if err != nil {
		return "", nil, fmt.Errorf("reading function name: %w", err)
	}
	if !strings.HasPrefix(name, "$") {
		return name, nil, nil
	}
	args, err := call.ArgumentList()
	if err != nil {
		return "", nil, fmt.Errorf("reading arguments of %s: %w", name, err)
	}
	return name, args, nil
}

// lineColumn is where a node begins, 0:0 where that was not recorded.
func lineColumn(sql string, node googlesql.ResolvedNode) (line, column int) {
	r, err := node.GetParseLocationRangeOrNULL()
	if err != nil || r == nil {
		return 0, 0
	}
	p, err := r.Start()
	if err != nil || p == nil {
		return 0, 0
	}
	offset, err := p.GetByteOffset()
	if err != nil || offset < 0 || int(offset) > len(sql) {
		return 0, 0
	}
	before := sql[:offset]
	return strings.Count(before, "\n") + 1, len([]rune(before[strings.LastIndex(before, "\n")+1:])) + 1
}
