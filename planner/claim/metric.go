// Package claim finds numeric claims in text, tables and shown output, and
// says whether the name of a number in a program's output means the metric of
// a claim.
//
// It is conservative on purpose: a number without a metric beside it is no
// claim, and two metrics match only when nothing that is stated about them
// differs.
package claim

import (
	"regexp"
	"strings"
)

// Key names a metric by its parts. Empty parts are not stated.
type Key struct {
	Base   string // canonical name: accuracy, loss, ttft, gpu_time, …
	Stat   string // p99, mean, median, max, …
	Split  string // train, val, test
	Effect string // reduction, increase, improvement, ratio; empty for the metric itself
	Unit   string // "%", "fraction" or "" where the name does not say
}

// String is the canonical name, such as "val_loss" or "p99_ttft_reduction".
func (k Key) String() string {
	var parts []string
	for _, p := range []string{k.Split, k.Stat, k.Base, k.Effect} {
		if p != "" {
			parts = append(parts, p)
		}
	}
	return strings.Join(parts, "_")
}

// metric is one row of the vocabulary.
type metric struct {
	base    string
	better  string // higher|lower
	percent bool   // commonly stated in percent
	names   []string
}

// vocabulary holds the metrics of the field with the ways to write them.
// Between the words of a name any of space, "-", "_", "/", "." or nothing may
// stand.
var vocabulary = []metric{
	{"accuracy", "higher", true, []string{"accuracy", "acc", "top 1 accuracy", "top 1 acc", "top 1", "acc@1", "acc1", "accuracies"}},
	{"top5_accuracy", "higher", true, []string{"top 5 accuracy", "top 5 acc", "top 5", "acc@5", "acc5"}},
	{"error_rate", "lower", true, []string{"error rate", "top 1 error", "test error", "classification error"}},
	{"f1", "higher", true, []string{"f1", "f1 score", "macro f1", "micro f1", "f score"}},
	{"exact_match", "higher", true, []string{"exact match", "exact match score", "em"}},
	{"precision", "higher", true, []string{"precision score", "precision"}},
	{"recall", "higher", true, []string{"recall"}},
	{"auc", "higher", true, []string{"auc", "auroc", "roc auc", "aucroc"}},
	{"map", "higher", true, []string{"map", "box ap", "mask ap", "average precision", "mean average precision", "ap", "map@r", "map@k"}},
	{"miou", "higher", true, []string{"miou", "mean iou", "iou"}},
	{"dice", "higher", true, []string{"dice", "dice score"}},
	{"bleu", "higher", false, []string{"bleu", "bleu score", "sacrebleu"}},
	{"rouge_l", "higher", false, []string{"rouge l", "rougel"}},
	{"cider", "higher", false, []string{"cider"}},
	{"perplexity", "lower", false, []string{"perplexity", "ppl"}},
	{"bpb", "lower", false, []string{"bits per byte", "bpb"}},
	{"bpc", "lower", false, []string{"bits per character", "bpc"}},
	{"loss", "lower", false, []string{"loss", "cross entropy loss", "cross entropy"}},
	{"nll", "lower", false, []string{"nll", "negative log likelihood"}},
	{"wer", "lower", true, []string{"wer", "word error rate"}},
	{"cer", "lower", true, []string{"cer", "character error rate"}},
	{"fid", "lower", false, []string{"fid", "frechet inception distance"}},
	{"psnr", "higher", false, []string{"psnr"}},
	{"ssim", "higher", false, []string{"ssim"}},
	{"lpips", "lower", false, []string{"lpips"}},
	{"rmse", "lower", false, []string{"rmse", "root mean squared error", "root mean square error"}},
	{"mse", "lower", false, []string{"mse", "mean squared error", "mean square error"}},
	{"mean_absolute_error", "lower", false, []string{"mean absolute error", "mae"}},
	{"relative_l2_error", "lower", false, []string{"relative l2 error", "l2 error", "relative l2", "l2re"}},
	{"r2", "higher", false, []string{"r squared", "r2 score", "r2"}},
	{"spearman", "higher", false, []string{"spearman", "spearman correlation", "spearmanr"}},
	{"pearson", "higher", false, []string{"pearson", "pearson correlation", "pearsonr"}},
	{"mcc", "higher", false, []string{"mcc", "matthews correlation"}},
	{"epe", "lower", false, []string{"epe", "end point error"}},
	{"pass_at_1", "higher", true, []string{"pass@1"}},
	{"pass_at_10", "higher", true, []string{"pass@10"}},
	{"win_rate", "higher", true, []string{"win rate", "winrate"}},
	{"success_rate", "higher", true, []string{"success rate"}},
	{"hit_rate", "higher", true, []string{"hit rate", "cache hit rate"}},
	{"return", "higher", false, []string{"episodic return", "episodic returns", "episode return", "episode returns", "return", "average return", "episode reward", "reward", "mean reward", "cumulative reward"}},
	{"score", "higher", false, []string{"mean score", "score", "core metric"}},
	{"average", "higher", false, []string{"average score"}},
	{"regret", "lower", false, []string{"regret", "cumulative regret"}},
	{"ttft", "lower", false, []string{"ttft", "time to first token"}},
	{"tpot", "lower", false, []string{"tpot", "time per output token"}},
	{"itl", "lower", false, []string{"itl", "inter token latency", "time between tokens", "tbt"}},
	{"latency", "lower", false, []string{"latency", "end to end latency", "e2e latency", "response time"}},
	{"throughput", "higher", false, []string{"throughput", "tokens per second", "tokens/s", "tok/s", "requests per second", "samples per second", "goodput", "qps"}},
	{"gpu_time", "lower", false, []string{"gpu time", "gpu hours", "gpu hour", "gpu usage hours"}},
	{"gpu_count", "lower", false, []string{"gpu count", "number of gpus", "gpus needed", "gpus required"}},
	{"cost", "lower", false, []string{"cost", "costs", "serving cost", "inference cost"}},
	{"preemptions", "lower", false, []string{"preemption", "preemptions", "preemption rate", "preemption rates", "preemption count", "number of preemptions"}},
	{"rejections", "lower", false, []string{"rejections", "request rejections", "rejection rate"}},
	{"runtime", "lower", false, []string{"runtime", "run time", "wall clock time", "training time", "execution time", "elapsed time", "wall time"}},
	{"speedup", "higher", false, []string{"speedup", "speed up", "speedups"}},
	{"memory", "lower", false, []string{"memory", "memory usage", "peak memory", "memory footprint", "memory consumption", "gpu memory"}},
	{"energy", "lower", false, []string{"energy", "energy consumption"}},
	{"compression_ratio", "higher", false, []string{"compression ratio"}},
	{"sparsity", "higher", true, []string{"sparsity"}},
	{"silhouette", "higher", false, []string{"silhouette score", "silhouette"}},
	{"ndcg", "higher", true, []string{"ndcg", "ndcg@10"}},
	{"mrr", "higher", false, []string{"mrr", "mean reciprocal rank"}},
	{"eer", "lower", true, []string{"eer", "equal error rate"}},
	{"ece", "lower", true, []string{"ece", "expected calibration error"}},
	{"elo", "higher", false, []string{"elo", "elo rating"}},
	{"coverage", "higher", true, []string{"coverage"}},
	{"makespan", "lower", false, []string{"makespan"}},
	{"utilization", "higher", true, []string{"utilization", "utilisation", "gpu utilization", "mfu"}},
}

var (
	metricByName = map[string]*metric{} // by squashed name
	metricByBase = map[string]*metric{}
	maxWords     = func() int {
		most := 0
		for i := range vocabulary {
			m := &vocabulary[i]
			metricByBase[m.base] = m
			for _, n := range m.names {
				metricByName[squash(n)] = m
				most = max(most, len(words(n)))
			}
		}
		return most
	}()
)

// squash is a name without case and separators.
func squash(s string) string {
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case separator(c):
		case c >= 'A' && c <= 'Z':
			b = append(b, c+'a'-'A')
		default:
			b = append(b, c)
		}
	}
	return string(b)
}

func separator(c byte) bool {
	return c == ' ' || c == '-' || c == '_' || c == '/' || c == '.' || c == '\t' || c == '\n'
}

// words lists the stretches of letters, digits and "@" in a text as offsets.
func words(s string) [][2]int {
	var out [][2]int
	for i := 0; i < len(s); {
		if !wordByte(s[i]) {
			i++
			continue
		}
		j := i
		for j < len(s) && wordByte(s[j]) {
			j++
		}
		out = append(out, [2]int{i, j})
		i = j
	}
	return out
}

func wordByte(c byte) bool { return letter(c) || c >= '0' && c <= '9' || c == '@' }

// longest is the index after the longest run of words from i on, joined by
// nothing but separators, that known accepts; i when there is none.
func longest(s string, ws [][2]int, i, most int, known func(string) bool) int {
	best := i
	for j := i; j < len(ws) && j-i < most; j++ {
		if j > i {
			for k := ws[j-1][1]; k < ws[j][0]; k++ {
				if !separator(s[k]) {
					return best
				}
			}
		}
		if known(squash(s[ws[i][0]:ws[j][1]])) {
			best = j + 1
		}
	}
	return best
}

// Better is the direction in which the metric is better, "" when unknown.
func Better(base string) string {
	if m := metricByBase[base]; m != nil {
		return m.better
	}
	return ""
}

// Mention is one place where a text names a metric.
type Mention struct {
	Key        Key
	Start, End int // in bytes, with its qualifiers
}

var (
	splitWords = map[string]string{
		"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val", "eval": "", "evaluation": "",
		"test": "test", "testing": "test", "heldout": "test",
	}
	statWords = map[string]string{
		"p50": "p50", "p90": "p90", "p95": "p95", "p99": "p99", "p999": "p999", "median": "p50", "mean": "mean", "average": "mean", "avg": "mean",
		"max": "max", "maximum": "max", "min": "min", "minimum": "min", "tail": "tail", "best": "", "lowest": "", "highest": "", "final": "", "overall": "", "peak": "max",
		"50th": "p50", "90th": "p90", "95th": "p95", "99th": "p99", "percentile": "",
	}
	wordBeforeRE = regexp.MustCompile(`([A-Za-z0-9]+)[\s_\-/.:]*$`)
	onSetRE      = regexp.MustCompile(`(?i)^\s+on\s+(?:the\s+)?(?:[\w\-]+\s+)?(test|validation|val|dev|train|training)[\s_\-]*(?:set|split|data)\b`)
	wordAfterRE  = regexp.MustCompile(`^[\s_\-/.(]*([A-Za-z0-9]+)`)
)

// Mentions lists the metrics that a text names, in order.
func Mentions(text string) []Mention {
	var out []Mention
	ws := words(text)
	for i := 0; i < len(ws); {
		end := longest(text, ws, i, maxWords, func(n string) bool { return metricByName[n] != nil })
		if end == i {
			i++
			continue
		}
		start, stop := ws[i][0], ws[end-1][1]
		i = end
		name := text[start:stop]
		if tooShort(name) {
			continue
		}
		mt := Mention{Key: Key{Base: metricByName[squash(name)].base}, Start: start, End: stop}
		mt.qualify(text)
		if strings.EqualFold(name, "mae") && !errorMeant(text, mt) {
			continue
		}
		out = append(out, mt)
	}
	return out
}

// tooShort are abbreviations that mean something else in lower case.
func tooShort(name string) bool {
	switch name {
	case "map", "ap", "return", "r2", "Map", "Return", "ece", "iou", "mse", "cer":
		return name == "map" || name == "Map" || name == "ap" || name == "Return"
	case "em", "Em":
		return true
	}
	return false
}

var besideMAERE = regexp.MustCompile(`(?i)\b(?:r?mse|mape)\b`)

// errorMeant tells the mean absolute error from a model of that name: a split
// or a statistic qualifies it, another error stands beside it, or it is all that
// the label says.
func errorMeant(text string, m Mention) bool {
	return m.Key.Split != "" || m.Key.Stat != "" || besideMAERE.MatchString(text) || strings.Trim(text, " :=,_{}'\"") == "mae"
}

func letter(c byte) bool { return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= 0x80 }

// qualify takes the words right before and after a metric that narrow it.
func (m *Mention) qualify(text string) {
	for range 4 {
		w := wordBeforeRE.FindStringSubmatchIndex(text[:m.Start])
		if w == nil || !m.take(text[w[2]:w[3]]) {
			break
		}
		m.Start = w[2]
	}
	if s := onSetRE.FindStringSubmatch(text[m.End:]); s != nil && m.Key.Split == "" {
		m.Key.Split = splitWords[strings.ToLower(s[1])]
	}
	for range 2 {
		w := wordAfterRE.FindStringSubmatchIndex(text[m.End:])
		if w == nil || !m.take(text[m.End+w[2]:m.End+w[3]]) {
			break
		}
		m.End += w[3]
	}
}

func (m *Mention) take(word string) bool {
	w := strings.ToLower(word)
	if s, ok := splitWords[w]; ok {
		if s != "" && m.Key.Split == "" {
			m.Key.Split = s
		}
		return true
	}
	if s, ok := statWords[w]; ok {
		if s != "" && m.Key.Stat == "" {
			m.Key.Stat = s
		}
		return true
	}
	return false
}

var effectWords = map[string]string{
	"reduction": "reduction", "reductions": "reduction", "reduced": "reduction", "decrease": "reduction", "saving": "reduction", "savings": "reduction",
	"saved": "reduction", "fewer": "reduction", "less": "reduction", "lower": "reduction", "drop": "reduction", "cut": "reduction",
	"improvement": "improvement", "improved": "improvement", "gain": "improvement", "gains": "improvement", "better": "improvement",
	"increase": "increase", "increased": "increase", "higher": "increase", "more": "increase", "boost": "increase",
	"ratio": "ratio", "factor": "ratio", "fold": "ratio", "times": "ratio", "x": "ratio",
}

var identRE = regexp.MustCompile(`[A-Za-z]+\d*|\d+[a-z]*|%`)

// ParseLabel reads the name of a number in a program's output: an identifier
// such as "p99_ttft_improvement_percent" or words such as "val loss". ok is
// false when it names no metric, or more than one.
func ParseLabel(label string) (Key, bool) {
	label = camel.ReplaceAllString(label, "${1}_$2")
	ms := Mentions(label)
	if len(ms) == 0 {
		return Key{}, false
	}
	k := ms[0].Key
	for _, m := range ms[1:] {
		if m.Key.Base != k.Base && !(m.Key.Base == "score" || m.Key.Base == "speedup") {
			return Key{}, false
		}
	}
	for _, w := range identRE.FindAllString(strings.ToLower(label), -1) {
		if e, ok := effectWords[w]; ok && k.Effect == "" {
			k.Effect = e
		}
		switch w {
		case "percent", "pct", "percentage", "perc", "%":
			k.Unit = "%"
		case "frac", "fraction":
			k.Unit = "fraction"
		}
	}
	if k.Base == "compression_ratio" {
		k.Effect = ""
	}
	return k, true
}

var camel = regexp.MustCompile(`([a-z0-9])([A-Z])`)

// Match says whether the number called got can be the metric that is claimed.
// What both state must agree; what only one states is a weaker match. The
// result is 0 for no match; a larger number is a better match.
func Match(claimed, got Key) int {
	if claimed.Base != got.Base || !sameEffect(claimed, got) {
		return 0
	}
	score := 10
	for _, p := range [][2]string{{claimed.Stat, got.Stat}, {claimed.Split, got.Split}} {
		switch {
		case p[0] == p[1]:
			score += 2
		case p[0] != "" && p[1] != "":
			return 0
		case p[0] != "" && percentile(p[0]) || p[1] != "" && percentile(p[1]):
			return 0 // a percentile is never the unqualified metric
		case p[1] == "train":
			return 0 // nobody claims a training metric without saying so
		default:
			score--
		}
	}
	return score
}

func percentile(s string) bool {
	return strings.HasPrefix(s, "p") || s == "tail" || s == "max" || s == "min"
}

// sameEffect compares the kind of change: an improvement of a metric that is
// better when lower is a reduction of it.
func sameEffect(a, b Key) bool { return effect(a) == effect(b) }

func effect(k Key) string {
	if k.Effect == "improvement" {
		if Better(k.Base) == "lower" {
			return "reduction"
		}
		return "increase"
	}
	if k.Base == "speedup" {
		return "ratio"
	}
	return k.Effect
}

// Percent says that the metric is commonly stated in percent.
func Percent(base string) bool {
	m := metricByBase[base]
	return m != nil && m.percent
}

var labelTailRE = regexp.MustCompile(`(?i)^[\s_\-/:=()\[\]*]*(?:(?:is|of|was|score|value|rate|on|the|test|val|validation|train|dev|set|average|avg|mean|in|percent|pct|percentage|reduction|improvement|increase|savings?|saved|ratio|factor|db|ms|s|%)[\s_\-/:=()\[\]*]*)*$`)

// EndsLabel says that the metric a label names is the last thing it says, so
// that a number right after the label is the metric's.
func EndsLabel(label string) bool {
	ms := Mentions(label)
	return len(ms) > 0 && labelTailRE.MatchString(label[ms[len(ms)-1].End:])
}
