package claim

import (
	"regexp"
	"strings"

	"github.com/repromill/repromill/planner/inspect/markdown"
)

// conventional are data sets whose results are stated in one metric unless
// another is named: the metric of their own leaderboards.
var conventional = map[string]string{
	"MNLI": "accuracy", "QNLI": "accuracy", "RTE": "accuracy", "SST-2": "accuracy", "MRPC": "accuracy", "QQP": "accuracy", "WNLI": "accuracy", "CoLA": "mcc",
	"BoolQ": "accuracy", "PIQA": "accuracy", "HellaSwag": "accuracy", "WinoGrande": "accuracy", "ARC-Challenge": "accuracy", "ARC-Easy": "accuracy", "OpenBookQA": "accuracy",
	"MMLU": "accuracy", "MMLU-Pro": "accuracy", "GSM8K": "accuracy", "MATH-500": "accuracy", "CommonsenseQA": "accuracy", "LAMBADA": "accuracy", "RACE": "accuracy",
	"CIFAR-10": "accuracy", "CIFAR-100": "accuracy", "MNIST": "accuracy", "Fashion-MNIST": "accuracy", "SVHN": "accuracy", "STL-10": "accuracy", "ImageNet": "accuracy", "ImageNet-100": "accuracy", "Tiny ImageNet": "accuracy",
	"Food-101": "accuracy", "Places365": "accuracy", "iNaturalist": "accuracy", "Kinetics-400": "accuracy", "UCF101": "accuracy", "ModelNet40": "accuracy", "VQAv2": "accuracy", "GQA": "accuracy",
	"Cora": "accuracy", "Citeseer": "accuracy", "PubMed": "accuracy", "ogbn-arxiv": "accuracy", "IMDB": "accuracy", "AG News": "accuracy",
	"WikiText-103": "perplexity", "WikiText-2": "perplexity", "WikiText2": "perplexity", "Wiki2": "perplexity", "PTB": "perplexity", "HumanEval": "pass_at_1", "MBPP": "pass_at_1",
	"COCO": "map", "ADE20K": "miou", "Cityscapes": "miou", "LibriSpeech": "wer",
}

// byDataset reads a table whose columns are headed by data sets. The metric of
// a column is what a row of metrics says, what the words around the table name,
// or what is usual for the data set.
func byDataset(t markdown.Table, group int) []Claim {
	sets := make([]string, len(t.Header))
	n := 0
	for i, h := range t.Header {
		if i == 0 {
			continue
		}
		if sets[i] = headed(h); sets[i] != "" {
			n++
		}
	}
	if n < 2 {
		return nil
	}
	stated, rows := metricRow(t)
	around, several := oneMetric(t)
	var out []Claim
	for j, row := range rows {
		if j >= maxRows {
			break
		}
		for i := 1; i < len(row.Cells) && i < len(sets); i++ {
			if sets[i] == "" {
				continue
			}
			k := around
			switch {
			case stated != nil && i < len(stated) && stated[i] != nil:
				k = *stated[i]
			case k.Base == "" && !several:
				k = Key{Base: conventional[sets[i]]}
			}
			if k.Base == "" {
				continue
			}
			c, ok := fromCell(row.Cells[i], k)
			if !ok {
				continue
			}
			c.Text = strings.TrimSpace(row.Cells[0] + ": " + t.Header[i] + " " + row.Cells[i])
			c.Dataset, c.Line, c.Group, c.Source = sets[i], row.Line, group, Table
			c.Links, c.Names = linksOf(row, i), []string{row.Cells[0], t.Header[i]}
			out = append(out, c)
		}
	}
	return out
}

var splitWordRE = regexp.MustCompile(`(?i)[\s(\[]*(?:test|val|valid|validation|dev|std|clean|other|[1-9]\.\d|[↑↓%]|acc\.?|\d+-shot)[\s)\]]*$`)

// headed is the data set that a header is nothing but the name of.
func headed(h string) string {
	for range 3 {
		h = splitWordRE.ReplaceAllString(h, "")
	}
	d := Dataset(h)
	if d == "" || len(squash(h)) > len(squash(d))+3 {
		return ""
	}
	return d
}

// metricRow takes the first row off a table when it names the metrics of its
// columns.
func metricRow(t markdown.Table) ([]*Key, []markdown.Row) {
	if len(t.Rows) == 0 || len(t.Rows[0].Cells) == 0 || !metricHeaderRE.MatchString(t.Rows[0].Cells[0]) {
		return nil, t.Rows
	}
	keys := make([]*Key, len(t.Rows[0].Cells))
	n := 0
	for i, c := range t.Rows[0].Cells[1:] {
		if k, ok := ParseLabel(c); ok {
			keys[i+1] = &k
			n++
		}
	}
	if n == 0 {
		return nil, t.Rows
	}
	return keys, t.Rows[1:]
}

// oneMetric is the metric that the words before a table name, or those of its
// heading; several says that they name more than one.
func oneMetric(t markdown.Table) (k Key, several bool) {
	for _, text := range []string{t.Intro, t.Heading} {
		ms := Mentions(text)
		if len(ms) == 0 {
			continue
		}
		for _, m := range ms[1:] {
			if m.Key != ms[0].Key {
				return Key{}, true
			}
		}
		return ms[0].Key, false
	}
	return Key{}, false
}

// byMethod reads a table whose first header names the metric and perhaps the
// data set, with models as rows and methods as columns.
func byMethod(t markdown.Table, group int) []Claim {
	if len(t.Header) < 2 {
		return nil
	}
	k, ok := ParseLabel(t.Header[0])
	if !ok {
		return nil
	}
	var out []Claim
	for j, row := range t.Rows {
		if j >= maxRows {
			break
		}
		for i := 1; i < len(row.Cells) && i < len(t.Header); i++ {
			c, ok := fromCell(row.Cells[i], k)
			if !ok {
				continue
			}
			c.Text = strings.TrimSpace(row.Cells[0] + ": " + t.Header[0] + " " + t.Header[i] + " " + row.Cells[i])
			c.Dataset = first(Dataset(t.Header[0]), Dataset(row.Cells[0]), Dataset(t.Intro))
			c.Line, c.Group, c.Source = row.Line, group, Table
			c.Links, c.Names = linksOf(row, i), []string{row.Cells[0], t.Header[i]}
			out = append(out, c)
		}
	}
	return out
}

// theirsRE are headers of numbers that the authors did not measure themselves
// with this code.
var theirsRE = regexp.MustCompile(`(?i)\b(?:paper|reported|original|published|official)\b`)

// theirs says that a column repeats what another column states as the authors'
// own: "paper" beside "ours".
func theirs(header []string, keys []*Key, i int) bool {
	if !theirsRE.MatchString(header[i]) || oursRE.MatchString(header[i]) {
		return false
	}
	for j, h := range header {
		if j != i && keys[j] != nil && *keys[j] == *keys[i] && oursRE.MatchString(h) {
			return true
		}
	}
	return false
}

// own says that a header is the authors' own: by its words, or because it names
// what the title of the document does.
func own(t markdown.Table, header string) bool {
	if oursRE.MatchString(header) {
		return true
	}
	title := strings.ToLower(t.Title)
	for _, w := range strings.FieldsFunc(strings.ToLower(header), func(r rune) bool { return r != '-' && (r < 'a' || r > 'z') && (r < '0' || r > '9') }) {
		if len(w) > 3 && !plainWords[w] && strings.Contains(title, w) {
			return true
		}
	}
	return false
}

var plainWords = map[string]bool{"model": true, "network": true, "networks": true, "neural": true, "learning": true, "method": true, "deep": true, "training": true, "language": true, "models": true, "with": true, "data": true}
