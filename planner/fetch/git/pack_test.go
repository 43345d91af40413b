package git

import (
	"bytes"
	"compress/zlib"
	"crypto/sha1"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/packfile"
	"github.com/go-git/go-git/v5/plumbing/format/pktline"
	"github.com/go-git/go-git/v5/storage/memory"
)

// The types of pack entries.
const (
	typeCommit = 1
	typeTree   = 2
	typeBlob   = 3
	typeOFS    = 6
	typeREF    = 7
)

// packBuilder writes packs that no git would.
type packBuilder struct {
	bytes.Buffer
	n      uint32
	starts []int
}

func newPack() *packBuilder {
	p := &packBuilder{}
	p.WriteString("PACK\x00\x00\x00\x02\x00\x00\x00\x00")
	return p
}

// add appends an entry: declared says what its header states, base what
// follows the header of a delta.
func (p *packBuilder) add(typ byte, declared int64, base, body []byte) int {
	at := p.Len()
	p.starts = append(p.starts, at)
	p.n++
	b := typ<<4 | byte(declared&15)
	for declared >>= 4; declared > 0; declared >>= 7 {
		p.WriteByte(b | 0x80)
		b = byte(declared & 0x7f)
	}
	p.WriteByte(b)
	p.Write(base)
	z, _ := zlib.NewWriterLevel(p, zlib.BestSpeed)
	_, _ = z.Write(body)
	_ = z.Close()
	return at
}

// ofs encodes the distance to an OFS_DELTA's base.
func ofs(n int) []byte {
	out := []byte{byte(n & 0x7f)}
	for n >>= 7; n > 0; n >>= 7 {
		n--
		out = append([]byte{byte(n&0x7f) | 0x80}, out...)
	}
	return out
}

func (p *packBuilder) done() []byte {
	b := p.Bytes()
	binary.BigEndian.PutUint32(b[8:], p.n)
	sum := sha1.Sum(b)
	return append(b, sum[:]...)
}

func id(kind, body string) []byte {
	sum := sha1.Sum(fmt.Appendf(nil, "%s %d\x00%s", kind, len(body), body))
	return sum[:]
}

// oneFile returns a commit, its tree, and the ids, for a single file f.
func oneFile(blob []byte) (commit, tree string, cid []byte) {
	tree = "100644 f\x00" + string(blob)
	commit = fmt.Sprintf("tree %x\nauthor a <a@b> 1700000000 +0000\ncommitter a <a@b> 1700000000 +0000\n\nx\n", id("tree", tree))
	return commit, tree, id("commit", commit)
}

func varint(n uint64) []byte { return binary.AppendUvarint(nil, n) }

// copyDelta makes a delta that copies all of a base of n bytes k times.
func copyDelta(n, k int) []byte {
	d := append(varint(uint64(n)), varint(uint64(n*k))...)
	for range k {
		for left, at := n, 0; left > 0; {
			c := min(left, 0xffffff)
			d = append(d, 0xff, byte(at), byte(at>>8), byte(at>>16), byte(at>>24), byte(c), byte(c>>8), byte(c>>16))
			left, at = left-c, at+c
		}
	}
	return d
}

// packServer is a server of the smart protocol that sends one made-up pack
// for whatever is asked.
func packServer(t testing.TB, commit []byte, pack []byte) *httptest.Server {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		e := pktline.NewEncoder(w)
		if r.Method == http.MethodGet {
			w.Header().Set("Content-Type", "application/x-git-upload-pack-advertisement")
			_ = e.EncodeString("# service=git-upload-pack\n")
			_ = e.Flush()
			_ = e.Encodef("%x HEAD\x00shallow ofs-delta symref=HEAD:refs/heads/main agent=test\n", commit)
			_ = e.Encodef("%x refs/heads/main\n", commit)
			_ = e.Flush()
			return
		}
		ask, _ := io.ReadAll(r.Body)
		w.Header().Set("Content-Type", "application/x-git-upload-pack-result")
		if bytes.Contains(ask, []byte("deepen")) {
			_ = e.Encodef("shallow %x", commit)
			_ = e.Flush()
		}
		_ = e.EncodeString("NAK\n")
		_, _ = w.Write(pack)
	}))
	t.Cleanup(s.Close)
	return s
}

// packCase is a pack, the commit to ask for, and what comes of it.
type packCase struct {
	pack, commit []byte
	want         string // a cap, "damaged", "ref" or "ok"
}

const helloText = "hello\n"

// soundPack holds a commit of one file, and what mangle adds. It returns the
// commit's id.
func soundPack(mangle func(p *packBuilder)) (pack, commit []byte) {
	body, tree, cid := oneFile(id("blob", helloText))
	p := newPack()
	p.add(typeCommit, int64(len(body)), nil, []byte(body))
	p.add(typeTree, int64(len(tree)), nil, []byte(tree))
	p.add(typeBlob, int64(len(helloText)), nil, []byte(helloText))
	if mangle != nil {
		mangle(p)
	}
	return p.done(), cid
}

// hostilePacks are small packs that no git would make.
func hostilePacks() map[string]packCase {
	good, cid := soundPack(nil)
	sound := func(mangle func(p *packBuilder)) []byte {
		pack, _ := soundPack(mangle)
		return pack
	}
	flipped := bytes.Clone(good)
	flipped[40] ^= 4
	lying := bytes.Clone(good)
	lying[len(lying)-1] ^= 1
	many := bytes.Clone(good)
	binary.BigEndian.PutUint32(many[8:], 1<<32-1)
	ghost, other := bytes.Repeat([]byte{1}, 20), bytes.Repeat([]byte{2}, 20)
	return map[string]packCase{
		"sound":          {good, cid, "ok"},
		"empty":          {nil, cid, "damaged"},
		"half":           {good[:len(good)/2], cid, "damaged"},
		"no checksum":    {good[:len(good)-20], cid, "damaged"},
		"bad checksum":   {lying, cid, "damaged"},
		"flipped bit":    {flipped, cid, "damaged"},
		"not a pack":     {[]byte(strings.Repeat("<html>", 100)), cid, "damaged"},
		"no such commit": {good, ghost, "ref"},
		"4e9 objects":    {many, cid, CapFiles},
		"declares 1 PiB": {sound(func(p *packBuilder) { p.add(typeBlob, 1<<50, nil, []byte("x")) }), cid, CapFile},
		"declares more":  {sound(func(p *packBuilder) { p.add(typeBlob, 100, nil, []byte("x")) }), cid, "damaged"},
		"declares less":  {sound(func(p *packBuilder) { p.add(typeBlob, 1, nil, []byte("xxxxxx")) }), cid, "damaged"},
		"huge tree":      {sound(func(p *packBuilder) { p.add(typeTree, 1<<31, nil, []byte("x")) }), cid, CapFile},
		"type 5":         {sound(func(p *packBuilder) { p.add(5, 1, nil, []byte("x")) }), cid, "damaged"},
		"delta cycle": {sound(func(p *packBuilder) {
			d := copyDelta(10, 1)
			p.add(typeREF, int64(len(d)), ghost, d)
			p.add(typeREF, int64(len(d)), other, d)
		}), cid, "damaged"},
		"delta of nothing": {sound(func(p *packBuilder) {
			d := copyDelta(10, 1)
			p.add(typeOFS, int64(len(d)), ofs(5), d)
		}), cid, "damaged"},
		"delta past base": {sound(func(p *packBuilder) {
			d := copyDelta(1000, 1)
			p.add(typeOFS, int64(len(d)), ofs(p.Len()-p.starts[2]), d)
		}), cid, "damaged"},
		"deltas both ways": {sound(func(p *packBuilder) { // REF before its base, and a chain
			b := "hello hello\n"
			first := append(append(varint(6), varint(12)...), append([]byte{12}, b...)...)
			p.add(typeREF, int64(len(first)), id("blob", helloText), first)
			d := copyDelta(len(b), 2)
			p.add(typeREF, int64(len(d)), id("blob", b), d)
		}), cid, "ok"},
	}
}

// packBombs are packs that inflate to far more than they are. They are slow to
// make.
func packBombs() map[string]packCase {
	_, cid := soundPack(nil)
	sound := func(mangle func(p *packBuilder)) []byte {
		pack, _ := soundPack(mangle)
		return pack
	}
	return map[string]packCase{
		"zlib bomb": {sound(func(p *packBuilder) {
			for range 12 { // each below the cap of one file, 1000:1
				p.add(typeBlob, 4<<20, nil, make([]byte, 4<<20))
			}
		}), cid, CapTotal},
		"dropped bombs": {sound(func(p *packBuilder) {
			for range 6 {
				p.add(typeBlob, 8<<20, nil, make([]byte, 8<<20))
			}
		}), cid, CapTotal},
		"delta bomb": {sound(func(p *packBuilder) {
			at := p.add(typeBlob, 1<<18, nil, make([]byte, 1<<18))
			for range 20 {
				d := copyDelta(1<<18, 16)
				p.add(typeOFS, int64(len(d)), ofs(p.Len()-at), d)
			}
		}), cid, CapTotal},
		"delta too large": {sound(func(p *packBuilder) {
			at := p.add(typeBlob, 1<<18, nil, make([]byte, 1<<18))
			d := copyDelta(1<<18, 17)
			p.add(typeOFS, int64(len(d)), ofs(p.Len()-at), d)
		}), cid, CapFile},
	}
}

func TestHostilePacks(t *testing.T) {
	t.Parallel()
	cases := hostilePacks()
	maps.Copy(cases, packBombs())
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			for _, child := range [][]string{nil, childCommand()} {
				s := packServer(t, tc.commit, tc.pack)
				cfg := Config{CacheDir: t.TempDir(), AllowHTTPHosts: []string{strings.TrimPrefix(s.URL, "http://")}, Child: child,
					Sleep: noSleep, Limits: Limits{TotalBytes: 8 << 20, FileBytes: 4 << 20, Files: 100}}
				co, err := newCloner(t, cfg).Checkout(t.Context(), Request{Repo: s.URL + "/x"})
				var (
					limit *LimitError
					bad   *damagedError
					ref   *RefError
				)
				switch tc.want {
				case "ok":
					if err != nil || content(t, co.Dir, "f") != helloText {
						t.Errorf("child %v: %+v, %v", child != nil, co, err)
					}
				case "damaged":
					if !errors.As(err, &bad) {
						t.Errorf("child %v: error %v, want a damaged pack", child != nil, err)
					}
				case "ref":
					if !errors.As(err, &ref) {
						t.Errorf("child %v: error %v, want a RefError", child != nil, err)
					}
				default:
					if !errors.As(err, &limit) || limit.Cap != tc.want {
						t.Errorf("child %v: error %v, want cap %s", child != nil, err, tc.want)
					}
				}
				nothingStaged(t, cfg.CacheDir)
			}
		})
	}
}

// A pack made to exhaust memory kills the child alone, and is reported as a
// limit.
func TestChildDiesOfMemory(t *testing.T) {
	t.Parallel()
	pack, cid := soundPack(func(p *packBuilder) {
		const n = 160 << 20
		at := p.add(typeBlob, n, nil, make([]byte, n))
		d := copyDelta(n, 1)
		p.add(typeOFS, int64(len(d)), ofs(p.Len()-at), d)
	})
	s := packServer(t, cid, pack)
	cfg := Config{CacheDir: t.TempDir(), AllowHTTPHosts: []string{strings.TrimPrefix(s.URL, "http://")}, Child: childCommand(),
		Limits: Limits{MemoryBytes: 128 << 20}}
	_, err := newCloner(t, cfg).Checkout(t.Context(), Request{Repo: s.URL + "/x"})
	var limit *LimitError
	if !errors.As(err, &limit) || limit.Cap != CapMemory {
		t.Errorf("error %v", err)
	}
	nothingStaged(t, cfg.CacheDir)
}

// Random bytes in a sound pack never do worse than an error, and never give
// an object whose content does not match its id.
func FuzzPack(f *testing.F) {
	for _, tc := range hostilePacks() {
		f.Add(tc.pack)
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, b []byte) {
		path := filepath.Join(dir, fmt.Sprintf("spool-%d", os.Getpid()))
		s, err := newSpool(path, 4<<20, 4<<20)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = s.close() }()
		p := &packReader{spool: s, fileBytes: 1 << 20, maxCount: 1000}
		if _, err := p.read(bytes.NewReader(b)); err != nil {
			return
		}
		for h, e := range s.index {
			body, err := s.read(nil, e.at, e.size)
			if err != nil {
				t.Fatal(err)
			}
			if plumbing.ComputeHash(e.typ, body) != h {
				t.Errorf("object %s does not match its id", h)
			}
		}
		// go-git's own parser agrees on what is in a pack that we accept.
		store := memory.NewStorage()
		if err := packfile.UpdateObjectStorage(store, bytes.NewReader(b)); err != nil {
			return // it refuses some that are sound, such as duplicates
		}
		for h := range store.Objects {
			if _, ok := s.index[h]; !ok {
				t.Errorf("object %s was lost", h)
			}
		}
	})
}

// A pack of a real history holds exactly the objects git lists, and the index
// we write for it is the one git writes.
func TestPackAgainstGit(t *testing.T) {
	t.Parallel()
	r := newRepo(t, t.TempDir())
	for i := range 30 {
		r.write("a.txt", strings.Repeat(fmt.Sprintf("line of the file number %d\n", i/7), 200+i))
		r.write(fmt.Sprintf("d/%d.txt", i), noise(500+i))
		r.commit(fmt.Sprint(i))
	}
	r.git("tag", "-a", "t", "-m", "t")
	sum := r.gitIn(r.git("rev-list", "--objects", "--all"), "pack-objects", "-q", "--depth=20", filepath.Join(r.dir, "p"))
	pack, err := os.ReadFile(filepath.Join(r.dir, "p-"+sum+".pack"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := newSpool(filepath.Join(t.TempDir(), "spool"), 1<<30, 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	p := &packReader{spool: s, fileBytes: 1 << 30, maxCount: 1e6}
	checksum, err := p.read(bytes.NewReader(pack))
	if err != nil {
		t.Fatal(err)
	}
	deltas := 0
	for line := range strings.Lines(r.git("verify-pack", "-v", filepath.Join(r.dir, "p-"+sum+".idx"))) {
		f := strings.Fields(line)
		if len(f) < 5 || len(f[0]) != 40 {
			continue
		}
		if len(f) == 7 {
			deltas++
		}
		e, ok := s.index[plumbing.NewHash(f[0])]
		if !ok || e.typ.String() != f[1] {
			t.Errorf("%s %s: got %v %v", f[0], f[1], e.typ, ok)
		}
	}
	if deltas == 0 {
		t.Error("the pack has no deltas: it tests little")
	}
	if err := s.close(); err != nil {
		t.Error(err)
	}
	var idx bytes.Buffer
	if err := p.writeIndex(&idx, checksum); err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile(filepath.Join(r.dir, "p-"+sum+".idx"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(idx.Bytes(), want) {
		t.Errorf("index differs from git's: %s", hex.EncodeToString(checksum[:]))
	}
}

func TestDeltaResultSize(t *testing.T) {
	for _, tc := range []struct {
		delta []byte
		want  int64
		ok    bool
	}{
		{copyDelta(300, 2), 600, true},
		{nil, 0, false},
		{[]byte{5}, 0, false},
		{[]byte{0x80, 0x80}, 0, false},
		{bytes.Repeat([]byte{0xff}, 30), 0, false},
	} {
		n, err := deltaResultSize(tc.delta)
		if n != tc.want || err == nil != tc.ok {
			t.Errorf("%x: %d, %v", tc.delta, n, err)
		}
	}
}

func BenchmarkUnpack(b *testing.B) {
	r := newRepo(b, b.TempDir())
	midSize(b, r)
	var pack []byte
	for _, e := range mustGlob(b, filepath.Join(r.dir, ".git/objects/pack/*.pack")) {
		pack = []byte(content(b, filepath.Dir(e), filepath.Base(e)))
	}
	b.SetBytes(int64(len(pack)))
	for b.Loop() {
		s, err := newSpool(filepath.Join(b.TempDir(), "spool"), 1<<30, 1<<30)
		if err != nil {
			b.Fatal(err)
		}
		p := &packReader{spool: s, fileBytes: 1 << 30, maxCount: 1e6}
		if _, err := p.read(bytes.NewReader(pack)); err != nil {
			b.Fatal(err)
		}
		_ = s.close()
	}
}

func mustGlob(t testing.TB, pattern string) []string {
	found, err := filepath.Glob(pattern)
	if err != nil || len(found) == 0 {
		t.Fatalf("nothing at %s: %v", pattern, err)
	}
	return found
}
