package dialect

// expr is a node of the expression tree.
type expr interface{ pos() position }

func (p position) pos() position { return p }

type (
	// literal is NULL, TRUE, 1, 1.5, 'x', b'x' or, with typed set, DATE 'x'.
	literal struct {
		position
		kind  kind
		text  string
		typed bool
	}
	param struct {
		position
		name string
	}
	// path is a.b.c, as written.
	path struct {
		position
		parts []string
	}
	fieldAccess struct {
		position
		of   expr
		name string
	}
	// index is of[at], of[OFFSET(at)], ...; how is upper case, empty for none.
	index struct {
		position
		of, at expr
		how    string
	}
	unary struct {
		position
		op string
		x  expr
	}
	binary struct {
		position
		op   string
		l, r expr
	}
	isTest struct {
		position
		x    expr
		not  bool
		what string // NULL, TRUE, FALSE
	}
	isDistinct struct {
		position
		l, r expr
		not  bool
	}
	between struct {
		position
		x, lo, hi expr
		not       bool
	}
	like struct {
		position
		x, pattern expr
		not        bool
	}
	// in has exactly one of list, array (UNNEST) and query.
	in struct {
		position
		x     expr
		list  []expr
		array expr
		query *query
		not   bool
	}
	caseOf struct {
		position
		operand expr // nil for CASE WHEN
		when    []when
		other   expr
	}
	when struct{ cond, then expr }
	call struct {
		position
		name       string // upper case, SAFE. removed
		safe       bool
		distinct   bool
		star       bool
		args       []expr
		nulls      string // IGNORE, RESPECT
		having     string // MAX, MIN
		havingExpr expr
		order      []orderItem
		limit      expr
		over       *window
	}
	cast struct {
		position
		safe   bool
		x      expr
		to     typ
		params bool // NUMERIC(10, 2), STRING(3)
		format expr
	}
	extract struct {
		position
		part expr
		x    expr
		zone expr
	}
	interval struct {
		position
		x    expr
		part string
	}
	arrayOfExprs struct {
		position
		elem  *typ
		items []expr
	}
	arrayOfQuery struct {
		position
		query *query
	}
	structOf struct {
		position
		typ   *typ
		items []selectItem
		tuple bool
	}
	scalarQuery struct {
		position
		query *query
	}
	exists struct {
		position
		query *query
	}
	defaultValue struct{ position }
)

type orderItem struct {
	x     expr
	desc  bool
	nulls string // FIRST, LAST
}

// window is an OVER clause: a name, a specification, or a name refined by one.
type window struct {
	position
	base      string
	partition []expr
	order     []orderItem
	frame     *frame
}

type frame struct {
	unit     string // ROWS, RANGE
	from, to frameBound
	between  bool
}

type frameBound struct {
	what string // UNBOUNDED PRECEDING, CURRENT ROW, PRECEDING, FOLLOWING, UNBOUNDED FOLLOWING
	x    expr
}

type query struct {
	position
	with      []cte
	recursive bool
	body      queryBody
	order     []orderItem
	limit     expr
	offset    expr
}

type cte struct {
	name  string
	query *query
}

// queryBody is *selectBody, *setOp or *query (in parentheses).
type queryBody interface{ pos() position }

type setOp struct {
	position
	op          string // UNION, INTERSECT, EXCEPT
	all         bool
	left, right queryBody
}

type selectBody struct {
	position
	distinct bool
	asStruct bool
	asValue  bool
	items    []selectItem
	from     tableExpr
	where    expr
	group    *grouping
	having   expr
	qualify  expr
	windows  map[string]*window
}

type grouping struct {
	position
	all    bool
	rollup bool
	items  []expr
}

type selectItem struct {
	position
	x       expr
	alias   string
	star    bool
	of      expr // t in t.*
	except  []string
	replace []selectItem
}

// tableExpr is *tableRef, *queryRef, *unnestRef or *join.
type tableExpr interface{ pos() position }

type (
	tableRef struct {
		position
		parts  []string
		alias  string
		offset string
		hasOff bool
		asOf   expr // of FOR SYSTEM_TIME, or nil
	}
	// appendsRef is APPENDS(TABLE .., moments..).
	appendsRef struct {
		position
		table   *tableRef
		moments []expr
		alias   string
	}
	queryRef struct {
		position
		query *query
		alias string
	}
	unnestRef struct {
		position
		x      expr
		alias  string
		offset string
		hasOff bool
	}
	join struct {
		position
		kind        string // CROSS, INNER, LEFT, RIGHT, FULL
		left, right tableExpr
		on          expr
		using       []string
	}
)

// statement is one of *query, *insert, *update, *deletion, *merge, *truncate.
type statement interface{ pos() position }

type (
	insert struct {
		position
		table   *tableRef
		columns []string
		rows    [][]expr
		query   *query
	}
	update struct {
		position
		table *tableRef
		set   []assignment
		from  tableExpr
		where expr
	}
	assignment struct {
		position
		of     string // t in SET t.column
		column string
		x      expr
	}
	deletion struct {
		position
		table *tableRef
		where expr
	}
	truncate struct {
		position
		table *tableRef
	}
	merge struct {
		position
		table  *tableRef
		source tableExpr
		on     expr
		when   []mergeWhen
	}
	mergeWhen struct {
		position
		matched  bool
		bySource bool
		cond     expr
		action   string // UPDATE, DELETE, INSERT
		set      []assignment
		columns  []string
		values   []expr
		row      bool
	}
)
