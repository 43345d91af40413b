package ruler

import (
	"context"
	"fmt"
	"slices"
	"sort"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/repromill/repromill/suites/data"
)

// essay is running text as words, with the places where sentences end.
type essay struct {
	words []string
	ends  []int // of each sentence: the place after its last word
}

// newEssay joins texts.
func newEssay(texts []string) (*essay, error) {
	e := &essay{words: strings.Fields(strings.Join(texts, " "))}
	if len(e.words) < 100 {
		return nil, fmt.Errorf("the essays hold %d words", len(e.words))
	}
	for i := range e.words {
		if i+1 == len(e.words) || endsSentence(e.words[i], e.words[i+1]) {
			e.ends = append(e.ends, i+1)
		}
	}
	return e, nil
}

// shortened are words whose stop does not end a sentence.
var shortened = []string{"mr", "mrs", "ms", "dr", "prof", "st", "vs", "etc", "e.g", "i.e", "inc", "ltd", "co", "jr", "sr", "no", "fig", "u.s", "cf", "al"}

// endsSentence tells by a word and the one after it.
func endsSentence(word, next string) bool {
	bare := strings.TrimRight(word, `"')]”’*_`)
	stop, ok := strings.CutSuffix(bare, ".")
	if !ok {
		return strings.HasSuffix(bare, "!") || strings.HasSuffix(bare, "?")
	}
	stop = strings.ToLower(strings.TrimLeft(stop, `"'([“‘*_`))
	if slices.Contains(shortened, stop) || len(stop) == 1 && unicode.IsLetter(rune(stop[0])) && stop != "i" {
		return false
	}
	first, _ := utf8.DecodeRuneInString(strings.TrimLeft(next, `"'([“‘*_`))
	return !unicode.IsLower(first)
}

// end is the place after the last word of sentence i, where the text is repeated.
func (e *essay) end(i int) int { return i/len(e.ends)*len(e.words) + e.ends[i%len(e.ends)] }

// with returns the first size words, repeated if there are not as many, with
// sentences put in at depths: percentages of its sentences, in order.
func (e *essay) with(size int, put []string, depths []int) string {
	count := size / len(e.words) * len(e.ends)
	count += sort.SearchInts(e.ends, size%len(e.words)+1)
	if count == 0 || e.end(count-1) < size {
		count++ // one that is cut
	}
	var b strings.Builder
	from := 0
	upTo := func(to int) {
		for i := from; i < to; i++ {
			if i > from {
				b.WriteByte(' ')
			}
			b.WriteString(e.words[i%len(e.words)])
		}
		from = max(from, to)
	}
	for i, s := range put {
		to := 0
		if n := count * depths[i] / 100; n > 0 {
			to = min(e.end(n-1), size)
		}
		upTo(to)
		b.WriteString(" " + s + " ")
	}
	upTo(size)
	return b.String()
}

// corpus is documents with questions over them.
type corpus struct {
	docs      []string
	questions []question
}

type question struct {
	text    string
	answers []string
	docs    []int // that hold the answer
	near    []int // of the same article, which come before any other
	cluster string
}

// index puts documents in order without repetition.
func (c *corpus) index(docs []string) map[string]int {
	slices.Sort(docs)
	c.docs = slices.Compact(docs)
	at := make(map[string]int, len(c.docs))
	for i, d := range c.docs {
		at[d] = i
	}
	return at
}

// squadRow is a row of SQuAD 2.0.
type squadRow struct {
	Title    string `json:"title"`
	Context  string `json:"context"`
	Question string `json:"question"`
	Answers  struct {
		Text []string `json:"text"`
	} `json:"answers"`
}

// newSquad keeps the questions that have an answer. The other paragraphs of an
// article stand near its questions.
func newSquad(rows []squadRow) (*corpus, error) {
	c := &corpus{}
	var docs []string
	articles := map[string][]string{}
	for _, r := range rows {
		docs = append(docs, r.Context)
		if list := articles[r.Title]; len(list) == 0 || list[len(list)-1] != r.Context {
			articles[r.Title] = append(list, r.Context)
		}
	}
	at := c.index(docs)
	for _, r := range rows {
		if len(r.Answers.Text) == 0 {
			continue
		}
		own := at[r.Context]
		q := question{text: r.Question, answers: r.Answers.Text, docs: []int{own}, cluster: fmt.Sprintf("squad/%d", own)}
		for _, d := range articles[r.Title] {
			if i := at[d]; i != own {
				q.near = append(q.near, i)
			}
		}
		c.questions = append(c.questions, q)
	}
	return c.checked("SQuAD")
}

// hotpotRow is a row of HotpotQA with its ten paragraphs.
type hotpotRow struct {
	Question string `json:"question"`
	Answer   string `json:"answer"`
	Context  struct {
		Title     []string   `json:"title"`
		Sentences [][]string `json:"sentences"`
	} `json:"context"`
}

func newHotpot(rows []hotpotRow) (*corpus, error) {
	c := &corpus{}
	own := make([][]string, len(rows))
	var docs []string
	for i, r := range rows {
		if len(r.Context.Title) != len(r.Context.Sentences) {
			return nil, fmt.Errorf("HotpotQA, row %d: %d titles of %d paragraphs", i+1, len(r.Context.Title), len(r.Context.Sentences))
		}
		for j, t := range r.Context.Title {
			own[i] = append(own[i], t+"\n"+strings.Join(r.Context.Sentences[j], ""))
		}
		docs = append(docs, own[i]...)
	}
	at := c.index(docs)
	for i, r := range rows {
		q := question{text: r.Question, answers: []string{r.Answer}}
		for _, d := range own[i] {
			q.docs = append(q.docs, at[d])
		}
		c.questions = append(c.questions, q)
	}
	return c.checked("HotpotQA")
}

func (c *corpus) checked(name string) (*corpus, error) {
	if len(c.questions) == 0 {
		return nil, fmt.Errorf("%s holds no question with an answer", name)
	}
	return c, nil
}

// essayRow is an essay.
type essayRow struct {
	Text string `json:"text"`
}

// needed reads what kinds are made of, and returns the hashes of what was read.
func needed(ctx context.Context, hub *data.Hub, files []data.File, use []*kind) (e *essay, corpora map[source]*corpus, shas []string, err error) {
	corpora = map[source]*corpus{}
	read := map[source]bool{}
	for _, k := range use {
		if k.needs == none || read[k.needs] {
			continue
		}
		read[k.needs] = true
		f := files[k.needs-1]
		var local data.Local
		switch k.needs {
		case essays:
			var rows []essayRow
			if rows, local, err = data.Read[essayRow](ctx, hub, f, "text"); err == nil {
				var texts []string
				for _, r := range rows {
					texts = append(texts, r.Text)
				}
				e, err = newEssay(texts)
			}
		case squad:
			var rows []squadRow
			if rows, local, err = data.Read[squadRow](ctx, hub, f, "title", "context", "question", "answers"); err == nil {
				corpora[squad], err = newSquad(rows)
			}
		case hotpot:
			var rows []hotpotRow
			if rows, local, err = data.Read[hotpotRow](ctx, hub, f, "question", "answer", "context"); err == nil {
				corpora[hotpot], err = newHotpot(rows)
			}
		}
		if err != nil {
			return nil, nil, nil, fmt.Errorf("%s is made of %s: %w", k.name, f.Repo, err)
		}
		shas = append(shas, local.SHA256)
	}
	return e, corpora, shas, nil
}
