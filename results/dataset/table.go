package dataset

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"hash/maphash"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/repromill/repromill/results/atomicfile"
	"github.com/repromill/repromill/results/schema"
)

// blockRows is how many rows are copied, checked and encoded together.
const blockRows = 512

// tableTxn is one table of a transaction.
type tableTxn[T schema.Row] struct {
	tx      *Txn
	ck      *schema.Checker[T]
	keys    map[[2]uint64]struct{} // 128-bit hashes of the keys seen
	names   map[string]string      // suite as given, by partition value
	parts   []*part[T]
	block   []T
	key     []byte
	dropped map[string]int64 // by suite
}

// part is one file of the table: one suite, or the whole table.
type part[T schema.Row] struct {
	suite string
	f     *stagedFile
	w     *schema.Writer[T]
	rows  []T // not encoded yet, at most blockRows
}

func (t *tableTxn[T]) table() string {
	var zero T
	return zero.Table()
}

// fill copies rows into the scratch block, completed by what the transaction
// knows.
func (t *tableTxn[T]) fill(rows []T) ([]T, error) {
	t.block = append(t.block[:0], rows...)
	for i := range t.block {
		c := schema.CommonOf(&t.block[i])
		if c.RunID == "" {
			c.RunID = t.tx.runID
		}
		if c.PlanHash == "" {
			c.PlanHash = t.tx.planHash
		}
		if c.SchemaVersion == "" {
			c.SchemaVersion = schema.Version
		}
		if c.RunID != t.tx.runID {
			return nil, &schema.RowError{Table: t.table(), Column: "run_id", Row: i, Reason: fmt.Sprintf("is %q in a transaction of %q", c.RunID, t.tx.runID)}
		}
		if c.SchemaVersion != schema.Version {
			return nil, &schema.RowError{Table: t.table(), Column: "schema_version", Row: i, Reason: fmt.Sprintf("is %q; this program writes %q", c.SchemaVersion, schema.Version)}
		}
		if s := t.ck.Suite(&t.block[i]); s != nil {
			if err := t.setSuite(s, i); err != nil {
				return nil, err
			}
		}
	}
	return t.block, nil
}

// setSuite replaces a suite by its partition value. Two suites that would share
// a partition are refused: they could not be told apart again.
func (t *tableTxn[T]) setSuite(s *string, row int) error {
	v := partitionValue(*s)
	if v == "" {
		return &schema.RowError{Table: t.table(), Column: "suite", Row: row, Reason: fmt.Sprintf("%q has no letter or digit to name a partition by", *s)}
	}
	if name, ok := t.names[v]; !ok {
		t.names[v] = *s
	} else if name != *s {
		return &schema.RowError{Table: t.table(), Column: "suite", Row: row, Reason: fmt.Sprintf("%q and %q would share the partition suite=%s", name, *s, v)}
	}
	*s = v
	return nil
}

// check reports the first row that cannot be stored, by its place in rows.
func (t *tableTxn[T]) check(rows []T) (err error) {
	names := maps.Clone(t.names)
	defer func() {
		if err != nil {
			t.names = names // those of refused rows do not count
		}
	}()
	for first := 0; first < len(rows); first += blockRows {
		block, err := t.fill(rows[first:min(first+blockRows, len(rows))])
		if err == nil {
			err = t.ck.Check(block)
		}
		var re *schema.RowError
		if errors.As(err, &re) {
			re.Row += first
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// add takes rows that passed check.
func (t *tableTxn[T]) add(rows []T) error {
	for first := 0; first < len(rows); first += blockRows {
		block, err := t.fill(rows[first:min(first+blockRows, len(rows))])
		if err != nil {
			return err
		}
		for i := range block {
			if err := t.addRow(&block[i]); err != nil {
				return err
			}
		}
	}
	// What stays buffered must not share memory with the caller.
	for _, p := range t.parts {
		for i := range p.rows {
			for _, l := range t.ck.Lists(&p.rows[i]) {
				*l = slices.Clone(*l)
			}
		}
	}
	return nil
}

func (t *tableTxn[T]) addRow(row *T) error {
	suite := ""
	if s := t.ck.Suite(row); s != nil {
		suite = *s
	}
	t.key = t.ck.AppendKey(t.key[:0], row)
	k := [2]uint64{maphash.Bytes(t.tx.seed[0], t.key), maphash.Bytes(t.tx.seed[1], t.key)}
	if _, dup := t.keys[k]; dup {
		if t.dropped == nil {
			t.dropped = map[string]int64{}
		}
		t.dropped[suite]++
		return nil
	}
	t.keys[k] = struct{}{}
	p, err := t.part(suite)
	if err != nil {
		return err
	}
	p.rows = append(p.rows, *row)
	if len(p.rows) < blockRows {
		return nil
	}
	if err := p.encode(); err != nil {
		return err
	}
	return t.tx.shrink()
}

// shrink writes out row groups, the largest first, until the transaction's
// buffers are within their bound.
func (tx *Txn) shrink() error {
	for {
		var total int64
		var largest tableSink
		for _, t := range tx.tables {
			n := t.buffered()
			total += n
			if largest == nil || n > largest.buffered() {
				largest = t
			}
		}
		if total <= tx.d.cfg.BufferBytes {
			return nil
		}
		if err := largest.flushLargest(); err != nil {
			return err
		}
	}
}

func (t *tableTxn[T]) part(suite string) (*part[T], error) {
	for _, p := range t.parts {
		if p.suite == suite {
			return p, nil
		}
	}
	p := &part[T]{suite: suite}
	f, err := newStagedFile(filepath.Join(t.tx.d.stagingDir(t.tx.runID), stagedName(t.table(), suite)))
	if err != nil {
		return nil, fmt.Errorf("stage table %s: %w", t.table(), err)
	}
	p.f = f
	t.parts = append(t.parts, p)
	p.w, err = schema.NewWriter[T](f, map[string]string{"run_id": t.tx.runID})
	if err != nil {
		return nil, fmt.Errorf("stage table %s: %w", t.table(), err)
	}
	return p, nil
}

func (p *part[T]) encode() error {
	err := p.w.Write(p.rows)
	clear(p.rows)
	p.rows = p.rows[:0]
	return err
}

func (t *tableTxn[T]) buffered() (n int64) {
	for _, p := range t.parts {
		n += p.w.Buffered()
	}
	return n
}

func (t *tableTxn[T]) flushLargest() error {
	p := slices.MaxFunc(t.parts, func(a, b *part[T]) int { return int(a.w.Buffered() - b.w.Buffered()) })
	return p.w.Flush()
}

// finish completes and syncs the files of the table.
func (t *tableTxn[T]) finish() ([]File, error) {
	slices.SortFunc(t.parts, func(a, b *part[T]) int { return strings.Compare(a.suite, b.suite) })
	date := t.tx.created.Format("2006-01-02")
	var out []File
	for _, p := range t.parts {
		if err := errors.Join(p.encode(), p.w.Close(), p.f.finish(t.tx.d.point("stage"))); err != nil {
			return nil, fmt.Errorf("stage table %s: %w", t.table(), err)
		}
		f := File{
			Table: t.table(), SchemaVersion: schema.Version, Path: partPath(t.table(), schema.Version, date, p.suite, t.tx.runID),
			Partition: map[string]string{"date": date}, Rows: p.w.Rows(), Bytes: p.f.size, SHA256: p.f.sum(), RowGroups: p.w.Groups(),
			Dropped: t.dropped[p.suite], NaNToNull: p.w.Stats().NaNToNull, FixedTexts: p.w.Stats().FixedTexts,
		}
		if p.suite != "" {
			f.Partition["suite"] = p.suite
		}
		out = append(out, f)
	}
	return out, nil
}

func (t *tableTxn[T]) abort() error {
	var errs []error
	for _, p := range t.parts {
		errs = append(errs, p.f.close())
	}
	return errors.Join(errs...)
}

// stagedFile is a file below _staging that is hashed as it is written.
type stagedFile struct {
	f    *os.File
	b    *bufio.Writer
	h    hash.Hash
	size int64
	open bool
}

func newStagedFile(path string) (*stagedFile, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	s := &stagedFile{f: f, h: sha256.New(), open: true}
	s.b = bufio.NewWriterSize(f, 256<<10)
	return s, nil
}

func (s *stagedFile) Write(p []byte) (int, error) {
	n, err := s.b.Write(p)
	s.h.Write(p[:n])
	s.size += int64(n)
	return n, err
}

// finish writes the rest, syncs and closes.
func (s *stagedFile) finish(o atomicfile.Options) error {
	if !s.open {
		return nil
	}
	err := s.b.Flush()
	if err == nil {
		hook(o, "fsync:before")
		err = s.f.Sync()
		hook(o, "fsync:after")
	}
	return errors.Join(err, s.close())
}

func hook(o atomicfile.Options, step string) {
	if o.Hook != nil {
		o.Hook(o.Point + "-" + step)
	}
}

func (s *stagedFile) close() error {
	if !s.open {
		return nil
	}
	s.open = false
	return s.f.Close()
}

func (s *stagedFile) sum() string { return hex.EncodeToString(s.h.Sum(nil)) }
