package aalcr

import (
	"archive/zip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/tiktoken-go/tokenizer/codec"
	"golang.org/x/text/encoding/charmap"
	"golang.org/x/text/unicode/norm"

	"github.com/repromill/repromill/suites"
	"github.com/repromill/repromill/suites/data"
)

const repo = "ArtificialAnalysis/AA-LCR"

// files are the questions of versions 1.1 and 1.0, and the documents, which are the
// same in both. The hashes are those of the publisher's files.
var files = []data.File{
	{Repo: repo, Commit: "9a77ef56b717057ade24ceab4d273712a0b4f19e", Path: "AA-LCR_Dataset.csv"},
	{Repo: repo, Commit: "bdae010bbce259820c0e34c1d7cce210d966fb75", Path: "AA-LCR_Dataset.csv"},
	{Repo: repo, Commit: "9a77ef56b717057ade24ceab4d273712a0b4f19e", Path: "extracted_text/AA-LCR_extracted-text.zip"},
}

// Definition registers the suite.
func Definition() suites.Definition {
	one, p95 := 1.0, 0.95
	card := suites.Sampling{Temperature: &one, TopP: &p95, MaxTokens: 131072}
	return suites.Definition{
		Facts: suites.Facts{Suite: Suite, Questions: 100, Repeats: 16, Within: 0.09, DataSet: repo, Needs: []suites.Need{suites.Judge}, PromptTokens: 100_000, OutputTokens: 4000},
		Doc:   "AA-LCR: 100 questions over sets of documents of about 100k tokens, judged by a model",
		Variants: []suites.Variant{
			{Name: "v1.1", Rule: "v1.1", Doc: "16 answers corrected, a judge with instructions that replies in JSON (GPT-5.6 Luna at its publisher's)", Source: "hf:ArtificialAnalysis/AA-LCR@9a77ef5:README.md", Sampling: card},
			{Name: "v1.0", Rule: "v1.0", Doc: "as model cards until September 2026 have it; judge Qwen3-235B-A22B-2507, not reasoning", Source: "hf:ArtificialAnalysis/AA-LCR@bdae010:README.md; NVIDIA-NeMo/Skills@8b18f39:nemo_skills/dataset/aalcr/prepare.py", Sampling: card},
		},
		Graders: Graders(), Data: files, Open: open,
	}
}

// row is a row of the questions.
type row struct {
	ID        string `json:"question_id"`
	Category  string `json:"document_category"`
	Set       string `json:"document_set_id"`
	Question  string `json:"question"`
	Answer    string `json:"answer"`
	Documents string `json:"data_source_filenames"`
	Tokens    string `json:"input_tokens"`
}

// Data is the suite over its questions and documents.
type Data struct {
	old       bool // version 1.0
	items     []suites.Item
	documents map[string]string // by path
}

// asked is an item's data: what its prompt is made of.
type asked struct {
	Documents []string `json:"documents"` // paths, in the order of the prompt
	SHA256    []string `json:"sha256"`    // of the documents
	Tokens    int      `json:"cl100k_tokens"`
}

func open(ctx context.Context, env suites.Env) (suites.Suite, error) {
	d := &Data{old: env.Variant == "v1.0"}
	questions := env.Files[0]
	if d.old {
		questions = env.Files[1]
	}
	rows, _, err := data.Read[row](ctx, env.Hub, questions, "question_id", "document_category", "document_set_id", "question", "answer", "data_source_filenames", "input_tokens")
	if err != nil {
		return nil, err
	}
	archive, err := env.Hub.Open(ctx, env.Files[2])
	if err != nil {
		return nil, err
	}
	if d.documents, err = readDocuments(archive.Name); err != nil {
		return nil, fmt.Errorf("read documents of AA-LCR: %w", err)
	}
	if err := d.arrange(rows); err != nil {
		return nil, err
	}
	return d, d.conform(ctx)
}

// unusable says that the data set is not what it was.
func unusable(format string, args ...any) error {
	return &data.Error{Msg: fmt.Sprintf(format, args...), Fix: "pin the commit that the suite names, and remove damaged files from the hub's cache"}
}

// maxDocuments bounds what is unpacked.
const maxDocuments = 1 << 30

// readDocuments unpacks the archive. Line ends are those that Python reads: the
// published token counts are of texts opened so.
func readDocuments(name string) (map[string]string, error) {
	r, err := zip.OpenReader(name)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	out := map[string]string{}
	left := int64(maxDocuments)
	for _, f := range r.File {
		if f.FileInfo().IsDir() || strings.HasPrefix(f.Name, "__MACOSX/") {
			continue
		}
		in, err := f.Open()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.Name, err)
		}
		b, err := io.ReadAll(io.LimitReader(in, left+1))
		if err = errors.Join(err, in.Close()); err != nil {
			return nil, fmt.Errorf("%s: %w", f.Name, err)
		}
		if left -= int64(len(b)); left < 0 {
			return nil, fmt.Errorf("the documents take more than %d bytes", maxDocuments)
		}
		key, text := lastThree(canonical(f.Name)), newlines(string(b))
		if was, twice := out[key]; twice && was != text {
			return nil, unusable("two documents of AA-LCR are named %s", key)
		}
		out[key] = text
	}
	return out, nil
}

func newlines(s string) string {
	return strings.ReplaceAll(strings.ReplaceAll(s, "\r\n", "\n"), "\r", "\n")
}

// canonical is a path by which a question finds a document. The archive has names
// in UTF-8 without saying so, some in decomposed form; a tool that takes them for
// code page 437, and copies made with it, have "EUΓÇÖs" for "EU’s". Questions write
// some apostrophes straight. One form stands for all of these.
func canonical(name string) string {
	name = strings.ToValidUTF8(strings.ReplaceAll(name, `\`, "/"), "\uFFFD")
	if b, err := charmap.CodePage437.NewEncoder().String(name); err == nil && utf8.ValidString(b) {
		name = b
	}
	name = norm.NFC.String(name)
	return strings.NewReplacer("’", "'", "‘", "'").Replace(name)
}

// lastThree keeps category, set and name of a path: folders above them depend on
// how the archive was packed.
func lastThree(path string) string {
	parts := strings.Split(path, "/")
	return strings.Join(parts[max(len(parts)-3, 0):], "/")
}

// path of a document that a question names.
func path(r row, name string) string {
	return canonical(strings.TrimSpace(r.Category) + "/" + strings.TrimSpace(r.Set) + "/" + strings.TrimSpace(name))
}

// arrange makes the items.
func (d *Data) arrange(rows []row) error {
	for i, r := range rows {
		tokens, err := strconv.Atoi(strings.TrimSpace(r.Tokens))
		if err != nil || r.ID == "" || strings.TrimSpace(r.Answer) == "" {
			return unusable("row %d of AA-LCR has the id %q, the answer %q and %q tokens", i+1, r.ID, r.Answer, r.Tokens)
		}
		a := asked{Tokens: tokens}
		for name := range strings.SplitSeq(r.Documents, ";") {
			if strings.TrimSpace(name) == "" {
				continue
			}
			p := path(r, name)
			text, ok := d.documents[p]
			if !ok {
				return unusable("question %s of AA-LCR asks about %s, which is not among the documents", r.ID, p)
			}
			a.Documents, a.SHA256 = append(a.Documents, p), append(a.SHA256, sha(text))
		}
		raw, err := json.Marshal(a)
		if err != nil {
			return fmt.Errorf("arrange questions: %w", err)
		}
		d.items = append(d.items, suites.Item{ID: strings.TrimSpace(r.ID), Question: newlines(r.Question), Reference: newlines(r.Answer), Category: r.Category, Cluster: r.Category + "/" + r.Set, Data: string(raw)})
	}
	return nil
}

// parts are the pieces of a prompt. Between them no token of cl100k can lie: its
// pattern never joins a line feed with the letter after it.
func (d *Data) parts(question string, documents []string) []string {
	out := []string{"BEGIN INPUT DOCUMENTS\n\n"}
	for i, p := range documents {
		out = append(out, fmt.Sprintf("BEGIN DOCUMENT %d:\n%s\n", i+1, d.documents[p]))
		end := fmt.Sprintf("END DOCUMENT %d\n\n", i+1)
		out = append(out, end)
	}
	return append(out, "END INPUT DOCUMENTS\n\nAnswer the following question using the input documents provided above.\n\nSTART QUESTION\n\n"+question+"\n\n", "END QUESTION\n")
}

// conform refuses prompts that do not have the number of tokens that the data set
// states: documents are missing, cut, changed or in another order.
func (d *Data) conform(ctx context.Context) error {
	var mu sync.Mutex
	known := map[string]int{} // tokens by part: questions of one set share most
	count := func(enc *codec.Codec, part string) (int, error) {
		key := sha(part)
		mu.Lock()
		n, ok := known[key]
		mu.Unlock()
		if ok {
			return n, nil
		}
		n, err := enc.Count(part)
		mu.Lock()
		known[key] = n
		mu.Unlock()
		return n, err
	}
	errs := make([]error, len(d.items))
	var wg sync.WaitGroup
	workers := runtime.GOMAXPROCS(0)
	for w := range workers {
		wg.Go(func() {
			enc := encoder()
			// A set's questions stand together, so each worker takes a block.
			for i := w * len(d.items) / workers; i < (w+1)*len(d.items)/workers && ctx.Err() == nil; i++ {
				errs[i] = d.conforms(d.items[i], func(part string) (int, error) { return count(enc, part) })
			}
		})
	}
	wg.Wait()
	if err := ctx.Err(); err != nil {
		return err
	}
	return errors.Join(errs...)
}

func (d *Data) conforms(it suites.Item, count func(string) (int, error)) error {
	var a asked
	if err := json.Unmarshal([]byte(it.Data), &a); err != nil {
		return fmt.Errorf("read question %s: %w", it.ID, err)
	}
	total := 0
	for _, part := range d.parts(it.Question, a.Documents) {
		n, err := count(part)
		if err != nil {
			return fmt.Errorf("count tokens of question %s: %w", it.ID, err)
		}
		total += n
	}
	if total != a.Tokens {
		return unusable("the prompt of question %s of AA-LCR has %d tokens of cl100k_base, its data set states %d: documents are missing, changed or in another order", it.ID, total, a.Tokens)
	}
	return nil
}

// encoder is OpenAI's tokenizer cl100k_base, by which the data set counts.
func encoder() *codec.Codec { return codec.NewCl100kBase() }
