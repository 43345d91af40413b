package dataset

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/repromill/repromill/results/atomicfile"
	"github.com/repromill/repromill/results/schema"
)

// Txn collects the rows and attachments of one run and commits them at once.
// Rows are encoded as they come; memory is bounded by Config.BufferBytes plus
// about 50 bytes a row, by which duplicates are known. A Txn is safe for
// concurrent use. It ends with Commit or Abort.
type Txn struct {
	d       *Dataset
	runID   string
	created time.Time

	mu       sync.Mutex
	state    txnState
	err      error // what broke the transaction
	planHash string
	lock     *runLock
	existing *Manifest // the run was committed before
	from     *Manifest // of the commit that this one copies, if any
	tables   []tableSink
	attached []Attachment
	seed     [2]maphash.Seed
}

type txnState int

const (
	txnNew txnState = iota
	txnOpen
	txnDone
)

// errDone says that a transaction was used after its end.
var errDone = errors.New("the transaction is over")

// Begin starts a transaction for a run that was created at the given time.
// Nothing is touched before the first Add, Attach or Commit, which take the
// run's lock: of several processes that commit one run, one does the work and
// the others find it done.
func (d *Dataset) Begin(runID string, created time.Time) *Txn {
	return &Txn{d: d, runID: runID, created: created.UTC(), seed: [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}}
}

// SetPlanHash names the plan of rows that do not name one themselves, and of
// the manifest.
func (tx *Txn) SetPlanHash(hash string) {
	tx.mu.Lock()
	defer tx.mu.Unlock()
	tx.planHash = hash
}

// start takes the lock and clears what a dead process left. Callers hold mu.
func (tx *Txn) start(ctx context.Context) error {
	switch {
	case tx.err != nil:
		return tx.err
	case tx.state == txnDone:
		return fmt.Errorf("run %s: %w", tx.runID, errDone)
	case tx.state == txnOpen:
		return nil
	}
	if err := checkRunID(tx.runID); err != nil {
		return err
	}
	if tx.created.Year() < 1970 || tx.created.Year() > 9999 {
		return fmt.Errorf("run %s: was created in the year %d, which cannot be right", tx.runID, tx.created.Year())
	}
	lock, err := tx.d.lock(ctx, tx.runID)
	if err != nil {
		return err
	}
	tx.lock, tx.state = lock, txnOpen
	if err := tx.open(); err != nil {
		return tx.fail(fmt.Errorf("begin run %s: %w", tx.runID, err))
	}
	return nil
}

// open looks at what there is of the run. A committed run stays as it is; half
// a commit, or one whose manifest is damaged, is replaced.
func (tx *Txn) open() error {
	m, err := tx.d.Manifest(tx.runID)
	var corrupt *CorruptError
	var missing *NotFoundError
	switch {
	case err == nil:
		tx.existing = m
		return nil
	case errors.As(err, &corrupt):
		path := tx.d.manifestPath(tx.runID)
		if dirs, err := tx.d.mergedParts(tx.runID, tx.created.Format("2006-01-02")); err != nil {
			return err
		} else if len(dirs) > 0 {
			return &UserError{Message: corrupt.Error() + "; its rows are merged with those of other runs and would be there twice", Fix: "put the manifest back from a backup"}
		}
		parts, err := tx.d.partsOf(tx.runID)
		if err != nil {
			return err
		}
		if err := removeAll(parts...); err != nil {
			return err
		}
		if err := atomicfile.Rename(path, path+".damaged", tx.d.point("manifest-aside")); err != nil {
			return err
		}
	case !errors.As(err, &missing):
		return err
	}
	if err := tx.d.rollback(tx.runID); err != nil {
		return err
	}
	return atomicfile.MkdirAll(tx.d.stagingDir(tx.runID), 0o755)
}

// fail ends the transaction with an error and removes what it staged.
func (tx *Txn) fail(err error) error {
	tx.err = errors.Join(err, tx.end())
	return tx.err
}

// end drops staged files and the lock.
func (tx *Txn) end() error {
	if tx.state != txnOpen {
		tx.state = txnDone
		return nil
	}
	tx.state = txnDone
	var errs []error
	for _, t := range tx.tables {
		errs = append(errs, t.abort())
	}
	tx.tables = nil
	errs = append(errs, os.RemoveAll(tx.d.stagingDir(tx.runID)), tx.lock.release())
	return errors.Join(errs...)
}

// Abort ends the transaction and leaves nothing of it. After Commit it does
// nothing, so it may be deferred.
func (tx *Txn) Abort() error {
	tx.mu.Lock()
	defer tx.mu.Unlock()
	return tx.end()
}

// tableSink is one table of a transaction, whatever its row type.
type tableSink interface {
	table() string
	buffered() int64
	flushLargest() error
	finish() ([]File, error)
	abort() error
}

// Add adds rows to the run. Empty run_id, plan_hash and schema_version are
// filled in; a row of another run is refused. Of rows with the same key (see
// [schema.Columns]) the first wins and the others are counted in the manifest,
// so rows of the attempt that counts are added first. The rows are copied.
//
// When a row cannot be stored the error, a [*schema.RowError], names it, and
// none of the rows given is added; the transaction goes on. Any other error
// ends the transaction.
func Add[T schema.Row](tx *Txn, batch ...T) error {
	tx.mu.Lock()
	defer tx.mu.Unlock()
	if err := tx.start(context.Background()); err != nil {
		return err
	}
	t, err := tableOf[T](tx)
	if err != nil {
		return tx.fail(err)
	}
	if err := t.check(batch); err != nil {
		return err
	}
	if tx.existing != nil {
		return nil
	}
	if err := t.add(batch); err != nil {
		return tx.fail(err)
	}
	return nil
}

func tableOf[T schema.Row](tx *Txn) (*tableTxn[T], error) {
	for _, t := range tx.tables {
		if t, ok := t.(*tableTxn[T]); ok {
			return t, nil
		}
	}
	ck, err := schema.NewChecker[T]()
	if err != nil {
		return nil, err
	}
	t := &tableTxn[T]{tx: tx, ck: ck, keys: map[[2]uint64]struct{}{}, names: map[string]string{}}
	tx.tables = append(tx.tables, t)
	return t, nil
}

// Attach keeps a file beside the manifest under name, a relative path such as
// plan.json or logs/execute.txt. The last content given for a name wins.
func (tx *Txn) Attach(name string, content []byte) error {
	return tx.attach(name, func(w io.Writer) error { _, err := w.Write(content); return err })
}

// AttachFrom is Attach for content too large to hold in memory.
func (tx *Txn) AttachFrom(name string, r io.Reader) error {
	return tx.attach(name, func(w io.Writer) error { _, err := io.Copy(w, r); return err })
}

func (tx *Txn) attach(name string, write func(io.Writer) error) error {
	tx.mu.Lock()
	defer tx.mu.Unlock()
	if !attachRE.MatchString(name) || reserved(name) {
		return fmt.Errorf("attach %q to run %s: it is no name for an attachment", name, tx.runID)
	}
	if err := tx.start(context.Background()); err != nil {
		return err
	}
	if tx.existing != nil {
		return nil
	}
	a, err := tx.stageAttachment(name, write)
	if err != nil {
		return tx.fail(fmt.Errorf("attach %s to run %s: %w", name, tx.runID, err))
	}
	tx.attached = append(slices.DeleteFunc(tx.attached, func(b Attachment) bool { return b.Name == name }), a)
	return nil
}

// reserved names belong to the dataset, or would look like data to a reader.
func reserved(name string) bool {
	return name == manifestDoc || name == intentDoc || filepath.Ext(name) == partSuffix || filepath.Ext(name) == tempSuffix
}

func (tx *Txn) stageAttachment(name string, write func(io.Writer) error) (Attachment, error) {
	path := stagedAttachment(tx.d.stagingDir(tx.runID), name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return Attachment{}, err
	}
	f, err := newStagedFile(path)
	if err != nil {
		return Attachment{}, err
	}
	if err := errors.Join(write(f), f.finish(tx.d.point("attachment"))); err != nil {
		return Attachment{}, err
	}
	return Attachment{Name: name, Path: runsDir + "/" + tx.runID + "/" + name, Bytes: f.size, SHA256: f.sum()}, nil
}

// point is the atomicfile options for a durable step.
func (d *Dataset) point(what string) atomicfile.Options {
	return atomicfile.Options{Hook: d.cfg.Hook, Point: "dataset:" + what}
}
