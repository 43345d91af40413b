package cli

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"strconv"

	"github.com/gofrs/flock"

	"github.com/repromill/repromill/planner/model"
)

// layerJournal keeps the weights that were read in a file of checked lines, so
// that an interrupted sweep goes on where it was. It survives the death of the
// process at any moment; what a crash of the machine takes is read again.
type layerJournal struct {
	path string
	lock *flock.Flock
	f    *os.File
	hook func(string)
	done map[string]model.Layer
}

// maxJournalLine bounds a line, in bytes.
const maxJournalLine = 1 << 20

// openJournal opens the journal of a sweep, which is known by what is read and
// how. A line that was cut off is dropped, with all after it.
func openJournal(dir string, identity any, hook func(string)) (*layerJournal, error) {
	id, err := json.Marshal(identity)
	if err != nil {
		return nil, fmt.Errorf("name journal: %w", err)
	}
	sum := sha256.Sum256(id)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make journal folder: %w", err)
	}
	j := &layerJournal{path: filepath.Join(dir, hex.EncodeToString(sum[:12])+".jsonl"), hook: hook, done: map[string]model.Layer{}}
	if j.hook == nil {
		j.hook = func(string) {}
	}
	j.lock = flock.New(j.path + ".lock")
	if ok, err := j.lock.TryLock(); err != nil {
		return nil, fmt.Errorf("lock journal: %w", err)
	} else if !ok {
		return nil, usererrf("wait for it to end, or stop it", "another process reads the weights of this model")
	}
	if j.f, err = os.OpenFile(j.path, os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("open journal: %w", err), j.lock.Unlock())
	}
	if err := j.replay(); err != nil {
		return nil, errors.Join(err, j.close())
	}
	return j, nil
}

func (j *layerJournal) replay() error {
	var end int64
	r := bufio.NewReaderSize(j.f, 64<<10)
	for {
		line, err := r.ReadBytes('\n')
		if err != nil && err != io.EOF {
			return fmt.Errorf("read journal: %w", err)
		}
		l, ok := readJournalLine(line)
		if !ok {
			break
		}
		j.done[l.Name] = *l
		end += int64(len(line))
	}
	if err := j.f.Truncate(end); err != nil {
		return fmt.Errorf("cut journal: %w", err)
	}
	if _, err := j.f.Seek(end, io.SeekStart); err != nil {
		return fmt.Errorf("read journal: %w", err)
	}
	return nil
}

// readJournalLine reads "<CRC-32C in hex> <layer as JSON>\n".
func readJournalLine(line []byte) (*model.Layer, bool) {
	body, ok := bytes.CutSuffix(line, []byte("\n"))
	if !ok || len(body) < 10 || len(body) > maxJournalLine || body[8] != ' ' {
		return nil, false
	}
	want, err := strconv.ParseUint(string(body[:8]), 16, 32)
	if err != nil || crc32.Checksum(body[9:], crc32.MakeTable(crc32.Castagnoli)) != uint32(want) {
		return nil, false
	}
	var l model.Layer
	if json.Unmarshal(body[9:], &l) != nil || l.Name == "" {
		return nil, false
	}
	return &l, true
}

// keep appends a layer in one write.
func (j *layerJournal) keep(l model.Layer) error {
	body, err := json.Marshal(l)
	if err != nil {
		return fmt.Errorf("write journal: %w", err)
	}
	line := fmt.Appendf(nil, "%08x %s\n", crc32.Checksum(body, crc32.MakeTable(crc32.Castagnoli)), body)
	j.hook("cli:inspect:before")
	if _, err := j.f.Write(line); err != nil {
		return fmt.Errorf("write journal: %w", err)
	}
	j.hook("cli:inspect:after")
	return nil
}

func (j *layerJournal) close() error {
	return errors.Join(j.f.Close(), j.lock.Unlock())
}

// remove forgets a sweep whose result was shown.
func (j *layerJournal) remove() error {
	err := os.Remove(j.path)
	_ = os.Remove(j.path + ".lock") // one that stays is used again
	return err
}
