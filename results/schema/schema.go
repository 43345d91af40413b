// Package schema is the shape of every results table: which columns there
// are, what they mean and in which unit, and how rows become Parquet.
//
// A table is declared once, as a Go struct (see [RunRow] and its siblings).
// The field's json name is the column's name; the col tag holds its role, the
// unit and doc tags what a reader of a notebook needs to know. From that follow
// the Arrow schema ([Arrow]), the Parquet encoder ([Writer]) and decoder
// ([Reader]).
//
// Columns use the portable types only: int64, string, double, bool,
// timestamp[us, UTC] and list<double>. What is not known is NULL: the zero
// value of [Opt], an empty string, a zero time, a nil list. A NaN becomes NULL;
// an infinity is an error that names table, column and row.
package schema

import (
	"fmt"
	"slices"
)

// Version is the version of every table's schema and a folder name in the
// dataset. It is frozen: notebooks and other programs read these files for
// years, and a reader that meets two shapes in one folder drops columns or
// fails. A change of any column, type, unit or meaning is a new version, whose
// files live in a folder of their own (<table>/v2/…) beside the old ones.
const Version = "v1"

// draft is the version of files from before v1 was frozen. Their columns are
// among those of v1, so they are read as v1 with what they lack as NULL.
const draft = "v1-draft"

// Readable reports whether this program reads files of a version.
func Readable(version string) bool { return version == Version || version == draft }

// VersionError says that a file is of a version that this program does not
// read.
type VersionError struct{ Table, Have string }

func (e *VersionError) Error() string {
	return fmt.Sprintf("a file of table %s has the schema version %q and this program reads %q: %s", e.Table, e.Have, Version, e.UserError())
}

// UserError returns the fix.
func (e *VersionError) UserError() string {
	return "read it with the release that wrote it, or as plain Parquet with DuckDB, Polars or pandas"
}

// The tables.
const (
	Runs        = "runs"
	Claims      = "claims"
	Metrics     = "metrics"
	Samples     = "samples"
	Requests    = "requests"
	Estimates   = "estimates"
	Events      = "events"
	Comparisons = "comparisons"
	Verdicts    = "verdicts"
	Layers      = "layers"
	Servers     = "servers"
)

// Tables lists the names of all tables.
func Tables() []string {
	return []string{Runs, Claims, Metrics, Samples, Requests, Estimates, Events, Comparisons, Verdicts, Layers, Servers}
}

// Row is implemented by the eleven row types of this package and by no other.
// Each embeds [Common] as its first field.
type Row interface {
	// Table is the name of the table the row belongs to.
	Table() string
}

// Common is what every row of every table carries.
type Common struct {
	RunID         string `json:"run_id" col:"req,dict,key" doc:"Identity of the run; joins all tables."`
	Attempt       string `json:"attempt,omitzero" col:"dict" doc:"Attempt that made the row, run_id/stage/arm/shard/n; NULL for what belongs to the run as a whole."`
	PlanHash      string `json:"plan_hash,omitzero" col:"dict" doc:"Hash of the plan document that was executed."`
	Kind          string `json:"kind" col:"req,dict" enum:"measured|published|derived|estimated|assumed" doc:"How the row's numbers came to be: measured, published, derived, estimated or assumed."`
	Simulated     bool   `json:"simulated" doc:"The numbers come from a simulation of the system, not from the system."`
	SchemaVersion string `json:"schema_version" col:"req,dict" doc:"Version of this table's schema."`
}

// The kinds of number, from the strongest to the weakest.
const (
	Measured  = "measured"
	Published = "published"
	Derived   = "derived"
	Estimated = "estimated"
	Assumed   = "assumed"
)

// Columns returns the columns of a table in file order. Partition columns
// (date, and suite for samples and requests) are not among them: they stand in
// the path. The error names the tables there are.
func Columns(table string) ([]Column, error) {
	l, err := layoutOf(table)
	if err != nil {
		return nil, err
	}
	cols := make([]Column, len(l.cols))
	for i, c := range l.cols {
		cols[i] = c.Column
	}
	return cols, nil
}

// Partitions returns the names of a table's partition columns, outermost first.
func Partitions(table string) []string {
	if table == Samples || table == Requests {
		return []string{"date", "suite"}
	}
	return []string{"date"}
}

// layoutOf returns the layout of a table by its name.
func layoutOf(table string) (*layout, error) {
	switch table {
	case Runs:
		return layoutFor[RunRow]()
	case Claims:
		return layoutFor[ClaimRow]()
	case Metrics:
		return layoutFor[MetricRow]()
	case Samples:
		return layoutFor[SampleRow]()
	case Requests:
		return layoutFor[RequestRow]()
	case Estimates:
		return layoutFor[EstimateRow]()
	case Events:
		return layoutFor[EventRow]()
	case Comparisons:
		return layoutFor[ComparisonRow]()
	case Verdicts:
		return layoutFor[VerdictRow]()
	case Layers:
		return layoutFor[LayerRow]()
	case Servers:
		return layoutFor[ServerRow]()
	}
	return nil, fmt.Errorf("no table is called %q; there are %v", table, Tables())
}

// Known reports whether table is the name of a table.
func Known(table string) bool { return slices.Contains(Tables(), table) }
