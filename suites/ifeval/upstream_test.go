package ifeval_test

import (
	"flag"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/repromill/repromill/suites/ifeval"
	"github.com/repromill/repromill/suites/instruct/instructtest"
)

var writeCases = flag.String("write-cases", "", "write the cases of TestUpstream to `FILE` and stop")

// Sentences in languages that the data set asks for.
var languages = map[string][]string{
	"ar": {"يولد جميع الناس أحرارا متساوين في الكرامة والحقوق.", "وقد وهبوا عقلا وضميرا وعليهم أن يعامل بعضهم بعضا بروح الإخاء."},
	"bg": {"Всички хора се раждат свободни и равни по достойнство и права.", "Те са надарени с разум и съвест и следва да се отнасят помежду си в дух на братство."},
	"bn": {"সমস্ত মানুষ স্বাধীনভাবে সমান মর্যাদা এবং অধিকার নিয়ে জন্মগ্রহণ করে।", "তাঁদের বিবেক এবং বুদ্ধি আছে।"},
	"de": {"Alle Menschen sind frei und gleich an Würde und Rechten geboren.", "Sie sind mit Vernunft und Gewissen begabt und sollen einander im Geist der Brüderlichkeit begegnen."},
	"en": {"All human beings are born free and equal in dignity and rights.", "They are endowed with reason and conscience and should act towards one another in a spirit of brotherhood."},
	"fa": {"تمام افراد بشر آزاد به دنیا می\u200cآیند و از لحاظ حیثیت و حقوق با هم برابرند.", "همه دارای عقل و وجدان هستند و باید نسبت به یکدیگر با روح برادری رفتار کنند."},
	"fi": {"Kaikki ihmiset syntyvät vapaina ja tasavertaisina arvoltaan ja oikeuksiltaan.", "Heille on annettu järki ja omatunto, ja heidän on toimittava toisiaan kohtaan veljeyden hengessä."},
	"gu": {"પ્રતિષ્ઠા અને અધિકારોની દૃષ્ટિએ સર્વ માનવો જન્મથી સ્વતંત્ર અને સમાન હોય છે.", "તેમનામાં વિચારશક્તિ અને અંતઃકરણ હોય છે."},
	"hi": {"सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतंत्रता और समानता प्राप्त है।", "उन्हें बुद्धि और अन्तरात्मा की देन प्राप्त है और परस्पर उन्हें भाईचारे के भाव से बर्ताव करना चाहिए।"},
	"it": {"Tutti gli esseri umani nascono liberi ed eguali in dignità e diritti.", "Essi sono dotati di ragione e di coscienza e devono agire gli uni verso gli altri in spirito di fratellanza."},
	"kn": {"ಎಲ್ಲಾ ಮಾನವರೂ ಸ್ವತಂತ್ರರಾಗಿಯೇ ಹುಟ್ಟಿದ್ದಾರೆ ಹಾಗೂ ಘನತೆ ಮತ್ತು ಹಕ್ಕುಗಳಲ್ಲಿ ಸಮಾನರಾಗಿದ್ದಾರೆ.", "ವಿವೇಕ ಮತ್ತು ಅಂತಃಕರಣಗಳನ್ನು ಪಡೆದವರಾಗಿದ್ದಾರೆ."},
	"ko": {"모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다.", "인간은 천부적으로 이성과 양심을 부여받았으며 서로 형제애의 정신으로 행동하여야 한다."},
	"mr": {"सर्व मानवी व्यक्ती जन्मतः स्वतंत्र आहेत व त्यांना समान प्रतिष्ठा व समान अधिकार आहेत.", "त्यांना विचारशक्ती व सदसद्विवेकबुद्धी लाभलेली आहे आणि त्यांनी एकमेकांशी बंधुत्वाच्या भावनेने आचरण करावे."},
	"ne": {"सबै व्यक्तिहरू जन्मजात स्वतन्त्र हुन् ती सबैको समान अधिकार र महत्व छ।", "निजहरूमा विचार शक्ति र सद्विचार भएकोले निजहरूले आपसमा भातृत्वको भावनाबाट व्यवहार गर्नु पर्छ।"},
	"pa": {"ਸਾਰਾ ਮਨੁੱਖੀ ਪਰਿਵਾਰ ਆਪਣੀ ਮਹਿਮਾ, ਸ਼ਾਨ ਅਤੇ ਹੱਕਾਂ ਦੇ ਪੱਖੋਂ ਜਨਮ ਤੋਂ ਹੀ ਆਜ਼ਾਦ ਹੈ।", "ਉਨ੍ਹਾਂ ਨੂੰ ਤਰਕ ਅਤੇ ਜ਼ਮੀਰ ਦੀ ਸੌਗਾਤ ਮਿਲੀ ਹੋਈ ਹੈ।"},
	"pt": {"Todos os seres humanos nascem livres e iguais em dignidade e em direitos.", "Dotados de razão e de consciência, devem agir uns para com os outros em espírito de fraternidade."},
	"ru": {"Все люди рождаются свободными и равными в своем достоинстве и правах.", "Они наделены разумом и совестью и должны поступать в отношении друг друга в духе братства."},
	"sw": {"Watu wote wamezaliwa huru, hadhi na haki zao ni sawa.", "Wote wamejaliwa akili na dhamiri, hivyo yapasa watendeane kindugu kwa moyo wa upendo katika kila jambo."},
	"ta": {"மனிதப் பிறவியினர் சகலரும் சுதந்திரமாகவே பிறக்கின்றனர்.", "அவர்கள் மதிப்பிலும் உரிமைகளிலும் சமமானவர்கள்."},
	"te": {"ప్రతిపత్తిస్వత్వముల విషయమున మానవులెల్లరును జన్మతః స్వతంత్రులును సమానులును నగుదురు.", "వారు వివేదన అంతఃకరణ సంపన్నులగుటచే పరస్పరము భ్రాతృభావముతో వర్తింపవలయును."},
	"th": {"มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกันในเกียรติศักดิ์และสิทธิ", "ต่างมีเหตุผลและมโนธรรม และควรปฏิบัติต่อกันด้วยเจตนารมณ์แห่งภราดรภาพ"},
	"ur": {"تمام انسان آزاد اور حقوق و عزت کے اعتبار سے برابر پیدا ہوئے ہیں۔", "انہیں ضمیر اور عقل ودیعت ہوئی ہے، اس لیے انہیں ایک دوسرے کے ساتھ بھائی چارے کا سلوک کرنا چاہیے۔"},
	"vi": {"Tất cả mọi người sinh ra đều được tự do và bình đẳng về nhân phẩm và quyền.", "Mọi con người đều được tạo hóa ban cho lý trí và lương tâm và cần phải đối xử với nhau trong tình bằng hữu."},
}

var english = []string{"The committee met on Tuesday to talk about the new library.", "Nobody expected the weather to change so quickly, but it did.",
	"Please find attached the notes that I promised you last week.", "Learning to cook is easier when you begin with simple meals.", "My brother works in a small shop near the station.",
	"In the morning we walked along the coast and watched the boats.", "She has been writing letters to her grandmother for years.", "What would you do if the train never came?"}

func each(list []string, f func(string) string) []string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = f(s)
	}
	return out
}

func kinds() []instructtest.Kind {
	count := func(name string, ns ...string) (out []string) {
		for _, n := range ns {
			out = append(out, `{"`+name+`": `+n+`}`)
		}
		return out
	}
	related := func(relation, name string, ns ...string) (out []string) {
		for _, n := range ns {
			out = append(out, `{"`+relation+`": "less than", "`+name+`": `+n+`}`, `{"`+relation+`": "at least", "`+name+`": `+n+`}`)
		}
		return out
	}
	var codes []string
	for c := range languages {
		codes = append(codes, c)
	}
	slices.Sort(codes)
	speech := instructtest.Kind{ID: "language:response_language", Joins: []string{" ", "\n", "\n\n"}}
	for range 4 { // each language's own text comes with every argument order
		for _, c := range codes {
			speech.Args = append(speech.Args, `{"language": "`+c+`"}`)
			speech.Whole = append(speech.Whole, strings.Join(languages[c], " "))
		}
	}
	for _, c := range codes {
		speech.Pieces = append(speech.Pieces, languages[c]...)
	}
	upper, lower := each(english, strings.ToUpper), each(english, strings.ToLower)
	return []instructtest.Kind{
		{ID: "keywords:existence", Args: []string{`{"keywords": ["river"]}`, `{"keywords": ["who", "cold"]}`, `{"keywords": ["Smith", "no"]}`, `{"keywords": ["istanbul"]}`, `{"keywords": ["can't"]}`, `{"keywords": ["straße", "i"]}`},
			Pieces: []string{"river", "Who", "COLD", "Smith", "nO", "İstanbul", "ıstanbul", "CAN'T", "can’t", "STRASSE", "Straße", "x", "ı", "a b"}},
		{ID: "keywords:frequency", Args: append(related("relation", "frequency", "1", "3", "6"), `{"keyword": "it", "relation": "at least", "frequency": 2}`), Pieces: []string{"it", "It", "İt", "ıt", "sit", "IT'S", "the river", "a", "ſit"}},
		{ID: "keywords:forbidden_words", Args: []string{`{"forbidden_words": ["it"]}`, `{"forbidden_words": ["rained", "fox"]}`, `{"forbidden_words": ["no", "I"]}`, `{"forbidden_words": ["can't"]}`, `{"forbidden_words": ["two", "ss"]}`},
			Pieces: []string{"it", "its", "it_", "éit", "it\u0301", "İT.", "(it)", "can't", "can'ts", "word", "fo", "fox-hole", "ſs", "two2", "two", "no!"}},
		{ID: "keywords:letter_frequency", Args: related("let_relation", "let_frequency", "1", "5", "20")},
		speech,
		{ID: "length_constraints:number_sentences", Args: related("relation", "num_sentences", "2", "4", "8", "15")},
		{ID: "length_constraints:number_paragraphs", Args: count("num_paragraphs", "1", "2", "3", "5"), Pieces: []string{"one", "two words", "***", "***", "* * *", "****", " *** "}, Joins: []string{"\n", " ", "\n\n", ""}},
		{ID: "length_constraints:number_words", Args: related("relation", "num_words", "3", "10", "30", "60")},
		{ID: "length_constraints:nth_paragraph_first_word", Args: []string{`{"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "hello"}`, `{"num_paragraphs": 3, "nth_paragraph": 1, "first_word": "Σας"}`, `{"num_paragraphs": 1, "nth_paragraph": 1, "first_word": "A"}`},
			Whole:  []string{"One.\n\nHello you.", "'Σας' x\n\nb\n\nc", "a.", "x\n\n\"Hello\" y", "A\n \nb", "ΣΑΣ\n\nb\n\nc", "\n\nA", "A\n\n"},
			Pieces: []string{"Hello there", "'hello' there", "\"Hello, you", "A b", "ΣΑΣ x", "Σας", "\"'hello", "hello.", " ", "one"}, Joins: []string{"\n\n", "\n\n", "\n", "\n\n\n", "\n \n"}},
		{ID: "detectable_content:number_placeholders", Args: count("num_placeholders", "1", "2", "4"), Pieces: []string{"[a]", "[b c]", "[", "]", "[x\ny]", "text", "[[z]]", "[]"}},
		{ID: "detectable_content:postscript", Args: []string{`{"postscript_marker": "P.S."}`, `{"postscript_marker": "P.P.S"}`, `{"postscript_marker": " PS: "}`}, Pieces: []string{"P.S. x", "p. s. y", "P.P.S", "P. P.\nS", "p.p.s", "PS: z", "ps", "P.S", "text.\n", "p.\u00a0s."}},
		{ID: "detectable_format:number_bullet_lists", Args: count("num_bullets", "1", "2", "3", "5"), Pieces: []string{"* a", "* b", "- c", "** d", "*", "  * e", "-", "f - g", "text", "*\tg", "\u2028- h"}, Joins: []string{"\n", "\n", "\n\n", "\n  ", "\r\n"}},
		{ID: "detectable_format:constrained_response"},
		{ID: "detectable_format:number_highlighted_sections", Args: count("num_highlights", "1", "2", "3", "6"), Pieces: []string{"*a*", "**b**", "* *", "** **", "***c***", "*", "text", "*x\ny*", "** d **", "****"}},
		{ID: "detectable_format:multiple_sections", Args: []string{`{"section_spliter": "Section", "num_sections": 2}`, `{"section_spliter": "SECTION", "num_sections": 1}`, `{"section_spliter": " Day ", "num_sections": 3}`, `{"section_spliter": "PARAGRAPH", "num_sections": 5}`},
			Pieces: []string{"Section 1", "Section 2", "SECTION 1", "section 3", "Section  4", "Section5", "Day 1", "Day 2", "Day\n3", "Day ٣", "PARAGRAPH 1", "PARAGRAPH 2", "text"}},
		{ID: "detectable_format:json_format", Whole: []string{`{}`, `[]`, `"x"`, `1`, `-1.5e3`, `nul`, `null`, `NaN`, `-Infinity`, `Infinity`, `-NaN`, `[NaN, 1]`, `1NaN`, `{"a": NaN}`, `{"a": Infinity, "b": "NaN"}`, "```json\n{\"a\": 1}\n```", "```\n[1]\n```", "```Json{}```", "```JSON []", "```js\n{}\n```",
			`{"a": 1,}`, `{'a': 1}`, `{"a": "b\nc"}`, "{\"a\": \"b\nc\"}", "{\"a\": \"\t\"}", `{"a": "\u00e9"}`, `{"a": "\ud800"}`, `{"a": "\x"}`, `01`, `1.`, `.5`, `+1`, `1e5`, `1E+5`, `[1 2]`, `{"a" 1}`, `{"a": 1} x`, "\ufeff{}", "\u00a0{}", "{}\u00a0", "[\u00a01]", "", strings.Repeat("1", 4300), strings.Repeat("1", 4301), "1." + strings.Repeat("1", 5000), strings.Repeat("1", 5000) + "e1", `{"a":1,"a":2}`, `true`, `True`, "[1]\x00", "\"\x7f\"", `"\/"`, `--1`, `- 1`, `-`, "```json```"},
			Pieces: []string{"{", "}", "[", "]", "\"a\"", ":", ",", "1", "NaN", "null", "\\", "\"", "```", "json"}, Joins: []string{"", " ", "\n"}},
		{ID: "detectable_format:title", Pieces: []string{"<<A>>", "<<", ">>", "<< >>", "<<<b>>>", "<<a\nb>>", "x", "<>", "<<<>>>", "<<\u00a0>>"}},
		{ID: "combination:two_responses", Pieces: []string{"a", "b", "******", "******", "*****", "*******", " "}, Joins: []string{"\n", "", " "}},
		{ID: "combination:repeat_prompt", Args: []string{`{"prompt_to_repeat": "Write a poem about ΣΑΣ."}`, `{"prompt_to_repeat": " What is İ? "}`}, Whole: []string{"Write a poem about ΣΑΣ. Roses.", "what is i\u0307? Yes", "WRITE A POEM ABOUT σας. x", "Write a poem about σασ.", "What is i?", "  what is İ? ok", "Write a poem"}},
		{ID: "startend:end_checker", Args: []string{`{"end_phrase": "Any other questions?"}`, `{"end_phrase": " That's ALL. "}`}, Whole: []string{"x Any other questions?", "\"Any other questions?\"", "any OTHER questions? \"", "Any other questions? .", "ok that's all.", "\"that's all.\" ", "that's all", "That's all.\n\nP.S."}},
		{ID: "startend:quotation", Whole: []string{`"a"`, ` "a" `, `"`, `""`, `"a" b`, `“a”`, `'a'`, "\"a\n\nb\"", "x\n\"a\""}},
		{ID: "change_case:capital_word_frequency", Args: related("capital_relation", "capital_frequency", "1", "2", "4", "10"), Pieces: []string{"HELLO", "NASA.", "U.S.A.", "I", "A", "Word", "IT'S", "CAN'T", "ǅ", "ⅢX", "Ⓐ", "X1", "\"QUOTE\"", "CANNOT", "A-B", "(ABC)", "x"}},
		{ID: "change_case:english_capital", Pieces: upper, Joins: []string{" ", "\n"}, Whole: append(slices.Clone(english), "123", "HI", "ǅ")},
		{ID: "change_case:english_lowercase", Pieces: lower, Joins: []string{" ", "\n"}, Whole: append(slices.Clone(english), "123", "hi", "ªº")},
		{ID: "punctuation:no_comma"},
	}
}

type caseOf = instructtest.Case

// fill gives arguments that vary one thing the others that they need.
func fill(list []caseOf) []caseOf {
	for i, c := range list {
		add := map[string]string{"keywords:frequency": `"keyword": "it", `, "keywords:letter_frequency": `"letter": "` + []string{"e", "I", "s", "k"}[i%4] + `", `}[c.ID]
		if add != "" && !strings.Contains(string(c.Args), `"keyword":`) {
			list[i].Args = []byte("{" + add + string(c.Args[1:]))
		}
	}
	return list
}

// TestUpstream holds the verifiers to what the published Python code said of the
// same texts: strictly and loosely. Language detection there draws at random; of
// its cases the majority of nine draws counts, and those without a clear one are
// left out.
//
// The outcomes were made with EleutherAI/lm-evaluation-harness 4e7e0d4
// (lm_eval/tasks/ifeval), nltk 3.9.2 with punkt_tab, and langdetect 1.0.9.
func TestUpstream(t *testing.T) {
	cases := fill(instructtest.Cases(7, 240, kinds()))
	if *writeCases != "" {
		f, err := os.Create(*writeCases)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := instructtest.Write(f, cases); err != nil {
			t.Fatal(err)
		}
		return
	}
	f, err := os.Open("testdata/upstream.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	got := instructtest.Compare(t, ifeval.Verifiers(), cases, f, map[string]float64{
		"language:response_language": .95, "change_case:english_capital": .85, "change_case:english_lowercase": .95})
	if len(got) != 25 {
		t.Errorf("%d kinds of instructions, want 25", len(got))
	}
	for _, a := range got {
		t.Logf("%-46s %3d cases, %3d the same, %3d followed, %d open, %d fail upstream", a.ID, a.Cases, a.Same, a.Followed, a.Open, a.Broken)
	}
}
