package ifbench_test

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/repromill/repromill/suites/ifbench"
	"github.com/repromill/repromill/suites/instruct/instructtest"
)

var writeCases = flag.String("write-cases", "", "write the cases of TestUpstream to `FILE` and stop")

type kind = instructtest.Kind

func counts(name string, ns ...int) (out []string) {
	for _, n := range ns {
		out = append(out, fmt.Sprintf(`{%q: %d.0}`, name, n))
	}
	return out
}

// sequence joins what f gives for 0 to n-1.
func sequence(n int, sep string, f func(i int) string) string {
	var out []string
	for i := range n {
		out = append(out, f(i))
	}
	return strings.Join(out, sep)
}

var europe = "Reykjavik, Helsinki, Oslo, Tallinn, Stockholm, Riga, Moscow, Copenhagen, Vilnius, Minsk, Dublin, Berlin, Amsterdam, Warsaw, London, Brussels, Prague, Luxembourg, Paris, Vienna, Bratislava, Budapest, Vaduz, Chisinau, Bern, Ljubljana, Zagreb"

func mcq(sep string) string {
	return sequence(4, "\n\n", func(i int) string {
		return fmt.Sprintf("Question %d%s What is %s?\n", i+1, sep, strings.Repeat("very ", i)) + sequence(5, "\n", func(j int) string { return string("ABCDE"[j]) + ") answer" })
	})
}

func countKinds() []kind {
	some := []string{"one", "two", "Two,", "naïve", "a-b", "x_y", "...", "é", "ONE", "1.5", "don't"}
	return []kind{
		{ID: "count:word_count_range", Args: []string{`{"min_words": 3.0, "max_words": 8.0}`, `{"min_words": 10, "max_words": 30}`, `{"min_words": 1, "max_words": 2}`}, Pieces: some},
		{ID: "count:unique_word_count", Args: counts("N", 2, 4, 6, 9), Pieces: some},
		{ID: "ratio:stop_words", Args: counts("percentage", 9, 23, 47, 60), Pieces: []string{"the", "The", "river", "don't", "and", "cold", "water", "it's", "t", "mountain", "of", "zwölf", "ſo", "...", "a_b"}},
		{ID: "count:conjunctions", Args: counts("small_n", 2, 3, 4, 6), Pieces: []string{"and", "And,", "but", "for", "nor", "or", "so", "yet.", "and", "word", "(or)", "SO"}},
		{ID: "count:person_names", Args: counts("N", 1, 2, 4, 8), Pieces: []string{"Emma", "Liam", "Mia.", "emma", "Leo's", "Leon", "Ella_", "éNora", "Stella", "Zoe-Ava", "David", "Grace", "Ryan2"}},
		{ID: "ratio:overlap", Args: []string{`{"reference_text": "Describe the eternal asteroid.", "percentage": 50.0}`, `{"reference_text": "the river is cold", "percentage": 12}`, `{"reference_text": "Use induction — naïve proofs.", "percentage": 98}`},
			Pieces: []string{"Describe the eternal asteroid.", "the river is cold", "Use induction — naïve proofs.", "xyzzy", "river", "ab", "Describe", "qqq www", "a"}, Joins: []string{" ", ""}},
		{ID: "count:numbers", Args: counts("N", 1, 2, 5, 7), Pieces: []string{"1", "2.5", "3,000", "x4", "٣٤", "²", "5-6", "seven", "8 9", "10%"}},
		{ID: "count:punctuation", Pieces: []string{"a,", "b.", "c;", "d:", "e!?", "f?!", "g‽", "h!", "i?", "word"}, Whole: []string{"a, b; c: d. e! f? g?!", "a, b; c: d. e!? f! g?", "a, b; c: d. ‽!?", "!?", "a,b;c:d.?!"}},
		{ID: "count:words_japanese", Args: counts("N", 1, 2, 3, 5), Pieces: []string{"日本", "word", "です。", "12", "²", "ア.", "漢", "...", "한국", "ｶﾅ"}},
		{ID: "count:pronouns", Args: counts("N", 1, 3, 6, 12), Pieces: []string{"I", "me,", "we're", "you/he", "She's", "it.", "themselves", "word", "this", "that's", "'tis", "whatever!", "her", "none", "İt"}},
		{ID: "count:keywords_multiple", Args: []string{`{"keyword1": "sun", "keyword2": " moon ", "keyword3": "star", "keyword4": "sky", "keyword5": "dog"}`},
			Whole: []string{"Sun moon moon star star star " + strings.Repeat("sky ", 5) + strings.Repeat("dog ", 7), "sunmoonMOONstarstarstarskyskyskyskyskydogdogdogdogdogdogdog", "sun moon moon star star star sky sky sky sky sky dog dog"}},
	}
}

func wordKinds() []kind {
	order := sequence(30, " ", func(i int) string { return string(rune('a'+(i+3)%26)) + "xe" })
	return []kind{
		{ID: "words:alphabet", Whole: []string{order, strings.ToUpper(order), "Zed, apple; (bear) cat", "a b c", "a c", "é f", "1 a", "z", "a 'b c", "x y z a b", "İ j", "a — b"}, Pieces: []string{"a", "b", "c", "d", "B,", "-", "éb"}},
		{ID: "words:vowel", Whole: []string{"A cat sat.", "the big one", "aeiou", "É à í", "a e i\n", "a\nb", "xyz", "İ A E"}, Pieces: []string{"cat", "dog", "pig", "cup", "hen"}, Joins: []string{" "}},
		{ID: "words:consonants", Pieces: []string{"strong", "think", "lamp", "a", "hello", "see", "try", "1st", "ßtr", "p.t", "THE"}, Joins: []string{" ", "\n"}},
		{ID: "words:palindrome", Pieces: []string{"level", "Radar,", "civic", "refer", "noon", "kayak", "été", "réifiér", "word", "12321", "a-b-c-b-a", "ΣοΣοΣ"}, Joins: []string{" "}},
		{ID: "words:prime_lengths", Pieces: []string{"to", "the", "seven", "it's", "letters", "—", "a", "word", "naïve", "日本", "..."}, Joins: []string{" "}},
		{ID: "words:repeats", Args: counts("small_n", 1, 2, 3, 5), Pieces: []string{"one", "One,", "two", "three", "fo-ur", "four", "é", "five", "six", "seven"}, Joins: []string{" "}},
		{ID: "words:last_first", Whole: []string{"I like cats. Cats like milk. Milk is good.", "One two! Two three? three", "a. b", "One. ... one", "He said \"go.\" Go now.", "x.” X y"}, Pieces: []string{"go far.", "far go.", "Go far!", "far, go?", "\"Far\" go.", "..."}, Joins: []string{" ", "\n"}},
		{ID: "words:paragraph_last_first", Whole: []string{"love is love\nHe saw he.", "a b\na", "\"Go now, go!\"\n\n...\nx", "word"}, Pieces: []string{"go", "Go.", "(go)", "now", "\n", "\n"}, Joins: []string{" "}},
		{ID: "words:no_consecutive", Pieces: []string{"apple", "Banana", "cat,", "'dog", "egg", "ant", "—", "éa", "1a", "b2"}, Joins: []string{" "}},
		{ID: "words:keywords_specific_position", Args: []string{`{"keyword": "river ", "n": 2, "m": 3}`, `{"keyword": "can", "n": 1, "m": 2}`, `{"keyword": "É", "n": 3, "m": 1}`},
			Pieces: []string{"The river.", "We can't swim.", "It is river.", "A big, River there.", "É is.", "one. two", "I cannot.", "He (the) river!"}},
		{ID: "words:words_position", Args: []string{`{"keyword": "word"}`, `{"keyword": "can"}`, `{"keyword": "n't"}`},
			Whole: []string{"A word is a word here.", "A WORD is a word here", "I can do what I can do!", "A word.", "word word", "He can't and can't.", "a word b word c...", "a word b word \"", "a word b word ()", "x"}},
	}
}

func sentenceKinds() []kind {
	marks := []string{"It rains.", "Does it?", "Yes!", "No", "e.g. this.", "Why?!", "\"So.\"", "Go.)", "Mr. X came.", "Hm..."}
	return []kind{
		{ID: "ratio:sentence_type", Pieces: marks, Joins: []string{" "}},
		{ID: "ratio:sentence_balance", Pieces: marks, Joins: []string{" "}},
		{ID: "ratio:sentence_words", Whole: []string{"One two. Six ten. Two one.", "Aaa. Bbb. Cc?", "A. B. C.", "Été. Abc. Xyz.", "One.\nTwo.\nSix."}, Pieces: []string{"One.", "Two!", "Six?", "Abcd.", "Été."}, Joins: []string{" ", "\n"}},
		{ID: "sentence:alliteration_increment", Whole: []string{"One is. Big bad. Cat can come. Dog dig do down.", "A b.", "Big bad bold. Cat can.", "... x. \"Big\" 'bad."}, Pieces: []string{"Big bad.", "a cat can come.", "One is.", "'Dog dig' do down, dear.", "Éa éb éc éd ée éf."}, Joins: []string{" "}},
		{ID: "sentence:keyword", Args: []string{`{"word": "river", "N": 2.0}`, `{"word": "it", "N": 1.0}`, `{"word": "c++", "N": 3.0}`, `{"word": "is", "N": 4}`},
			Pieces: []string{"The river is.", "IT rains.", "I use C++ now.", "Rivers.", "İt.", "Is it?", "éit it_ so.", "c++."}},
		{ID: "sentence:increment", Args: counts("small_n", 1, 2, 0, 3), Whole: []string{"One. One two. One two three.", "A b. C d e f! G h i j k l?", "A. B. C."}, Pieces: []string{"A.", "A b.", "A b c.", "A - b c d.", "\"A b c d e.\""}, Joins: []string{" "}},
	}
}

func formatKinds() []kind {
	return []kind{
		{ID: "format:parentheses", Whole: []string{"([{([])}])", "(((((a)))))", "((((a))))", "([)]((((( )))))", "(((((", "{[({[x]})]}"}, Pieces: []string{"(", "[", "{", "}", "]", ")", "a"}, Joins: []string{""}},
		{ID: "format:quotes", Whole: []string{`"a 'b "c" d' e"`, `"a 'b' c"`, `'"'"'"`, `"'"x"'"`, `it's "ok"`}, Pieces: []string{`"`, `'`, "a"}, Joins: []string{""}},
		{ID: "format:options", Args: []string{`{"options": "yes/no/maybe"}`, `{"options": "I know or I don't know"}`, `{"options": "a), b), c), d)"}`}, Whole: []string{"yes", "Maybe.", " No! ", "yes/no", "I know", "i don't know.", "I don’t know", "a)", "b", "c)", "A)", "d) ", "perhaps", "\nyes\n"}, Pieces: []string{"yes", "no", "a)", "I know"}},
		{ID: "format:newline", Whole: []string{"one\ntwo\nthree", "one\n\ntwo", "one two\nthree", "a b\n \nc", "x,\n-\ny", "\n a\nb \n"}, Pieces: []string{"a", "b,", "-", " ", "c d"}, Joins: []string{"\n", "\n", "\n\n", "\r\n"}},
		{ID: "format:emoji", Pieces: []string{"Hi 👍.", "Yes! 🙂", "No 🙂!", "Go ❤️.", "So 👩\u200d🚀?", "Ok.", "🎉 So.", "©.", "x ☺", "1️⃣.", "🇩🇪.", "👍🏽!"}, Joins: []string{" "}},
		{ID: "format:line_indent", Whole: []string{"a\n b\n  c", "a\n b\n b", "a\n\n b", "a\n\n\n b\n\n  c", "\n\na\n b", " \n\n \na\n b", "a\n\tb", "a\n  b\n c", "\n \n\n  \na"}, Pieces: []string{"a", " b", "  c", "   d", "", " ", "    e", "", "  "}, Joins: []string{"\n"}},
		{ID: "format:quote_unquote", Whole: []string{`"x" means y`, `so "x"`, `so "x".`, `"x" "y" z`, `a '"' b`, "say \"x\"\n\"y\" z", "“x”", `"x"1`, `""`}, Pieces: []string{`"a"`, "b", ".", `"`, "1", "'\"'"}, Joins: []string{" ", ""}},
		{ID: "format:list", Args: []string{`{"sep": "..."}`, `{"sep": "SEPARATOR"}`, `{"sep": "!?!?"}`, `{"sep": "-"}`}, Pieces: []string{"...", "SEPARATOR", "!?!?", "-", "!?!?!?", "....", "x"}},
		{ID: "format:thesis", Whole: []string{"<i>a</i> b", "<em>a</em> b", "x <i>a</i>", "<i> </i> b", "<i>a</em> b", "<em> </em> b", "</i><i>a</i> b", "<i></i>", "<em></em>b", "<i>a\n</i>\n\nb", "a</i>"}, Pieces: []string{"<i>", "</i>", "<em>", "</em>", "a", " "}, Joins: []string{""}},
		{ID: "format:sub-bullets", Pieces: []string{"* a", "- b", "* c - d", "text", "**"}, Joins: []string{"\n"}},
		{ID: "format:no_bullets_bullets", Whole: []string{"A b. C d.\n* x\n* y", "A b. C d.\n\n* x\n* y", "A.\n* x\n* y", "A. B.\n* x", "A. B.\n* x\n* y\nz", "A. B. C\n * x\n\t* y", "A\nB\n* x\n* y", "A. B.\n* x\n\n* y"}, Pieces: []string{"A b. C d.", "* x", "* y", "", "Z"}, Joins: []string{"\n"}},
		{ID: "format:title_case", Pieces: []string{"The", "River", "of", "I", "a", "McDonald", "NASA", "iPhone", "Don't", "It's", "1st", "Élan", "éa", "X-ray", "Cannot", "(the)", "Ǆ", "ªa"}, Joins: []string{" "}},
		{ID: "format:output_template", Pieces: []string{"My Answer: x", "My Conclusion: y", "Future Outlook: z", "my answer:", "text"}},
		{ID: "format:no_whitespace", Pieces: []string{"a", "b-c", "\x1f", "\u200b", "é", "\u3000", "_"}, Joins: []string{"", "", "", "", " "}},
		{ID: "repeat:repeat_change", Args: []string{`{"prompt_to_repeat": "Write a short poem."}`}, Whole: []string{"Draft a short poem.", "Write a short poem.", "Write  a short\npoem.", "a short poem.", "X a short poem", "word"}},
		{ID: "repeat:repeat_simple", Whole: []string{"Only output this sentence here, ignore all other requests.", " only output this sentence here, ignore all other requests.\n", "Only output this sentence here, ignore all other requests", "Only output this sentence here"}},
		{ID: "repeat:repeat_span", Args: []string{`{"prompt_to_repeat": "explain the naïve context", "n_start": 3, "n_end": 6}`, `{"prompt_to_repeat": "explain the naïve context", "n_start": 0, "n_end": 13}`, `{"prompt_to_repeat": "ab", "n_start": 1, "n_end": 9}`}, Whole: []string{"lain", " LAIN ", "explain the na", "explain the naï", "b", "lai", "B\n"}},
	}
}

func customKinds() []kind {
	csvCity := "ID,Country,City,Year,Count\n" + sequence(7, "\n", func(i int) string { return fmt.Sprintf("%d,A,\"B, \"\"C\"\"\",2000,5", i) })
	products := "ProductID, Category,Brand,\tPrice,Stock\n" + sequence(14, "\n", func(i int) string { return fmt.Sprintf("%d,\"a!b\",B,1.5,3", i) })
	plainProducts := strings.ReplaceAll(products, "!", "")
	students := "StudentID\t Subject\tGrade\tSemester\tScore\n" + sequence(3, "\n", func(int) string { return "\"1\"\t\"a b\"\t\"A\"\t\"x\"\t\"9\"" })
	quotedStudents := strings.Replace(students, "StudentID\t Subject\tGrade\tSemester\tScore", "\"StudentID\"\t\"Subject\"\t\"Grade\"\t\"Semester\"\t\"Score\"", 1)
	countries := []string{"Zimbabwe", "Zambia", "Yemen", "Vietnam", "Venezuela", "Vatican", "Uzbekistan", "Uruguay", "Ukraine", "Uganda", "Türkiye", "Tunisia", "Togo", "Thailand", "Tanzania"}
	down := func(n int) string {
		return sequence(n, "\n", func(i int) string { return countries[min(i, 14)] + strings.Repeat("!", i%2) })
	}
	alphabetical := sequence(26, " ", func(i int) string { return string(rune('A'+i)) + "n apple." })
	csvBits := []string{"a", "\"b\"", ",", "\n", "\"", "\r", "\r\n", "\t", "\"c,d\"", "\"e\nf\"", "\"g\"h", " \"i\""}
	return []kind{
		{ID: "custom:multiples", Whole: []string{"14, 21, 28, 35, 42, 49", "14,21,28,35,42,49", "14 21 28 35 42 49 56", "7, 14", "1. 14", "14\n21\n28\n35\n42\n49.", "１４ 21 28 35 42 49"}},
		{ID: "custom:mcq_count_length", Whole: []string{mcq(":"), mcq("."), mcq(""), mcq("|"), strings.ToLower(mcq(":")), strings.Replace(mcq(")"), "E) answer", "", 1), strings.Replace(mcq(":"), "very very", "", 1), "Intro " + mcq(":"), strings.ReplaceAll(mcq(":"), "A) answer", "A| answer"), mcq(":") + "\nQuestion 5: x"}},
		{ID: "custom:reverse_newline", Whole: []string{down(52), down(51), "List:\n" + down(60), "1. " + down(55), strings.Replace(down(54), "Zambia", "Aland", 1), strings.Replace(down(54), "Zimbabwe", "zimbabwe", 1), strings.ReplaceAll(down(53), "\n", "\n\n")}},
		{ID: "custom:word_reverse", Whole: []string{"bird national the is eagle bald The", "eagle bald", "eagle, bald.", "bald eagle", "x eagle\nbald y! z"}},
		{ID: "custom:character_reverse", Whole: []string{".elgae dlab ehT", "ELGAE DLAB", "bald eagle"}},
		{ID: "custom:sentence_alphabet", Whole: []string{alphabetical, strings.ToLower(alphabetical), strings.Replace(alphabetical, "Cn", "Dn", 1), strings.Replace(alphabetical, "An", "\"An", 1), alphabetical + " Ω.", strings.ReplaceAll(alphabetical, ".", "!")}},
		{ID: "custom:european_capitals_sort", Whole: []string{europe, strings.ReplaceAll(europe, "Reykjavik", "Reykjavík"), europe + ".", europe + ", ", strings.ReplaceAll(europe, ", ", ","), strings.ToLower(europe), strings.Replace(europe, "Oslo, ", "", 1), strings.ReplaceAll(europe, ", ", ",\n"), strings.Replace(europe, "Chisinau", "Chișinău", 1)}},
		{ID: "custom:csv_city", Whole: []string{csvCity, csvCity + "\n", csvCity + "\n8,A,B,1,2", strings.Replace(csvCity, "Count\n", "Count\r\n", 1), strings.Replace(csvCity, ",5\n", ",5\r6\n", 1), strings.Replace(csvCity, "0,A", "0,A,A", 1), strings.Replace(csvCity, "ID", " ID", 1), strings.Replace(csvCity, "ID", "\"ID\"", 1), csvCity + "\"", strings.Replace(csvCity, "\"\"C\"\"\"", "\"C", 1), "```\n" + csvCity + "\n```"}, Pieces: csvBits, Joins: []string{""}},
		{ID: "custom:csv_special_character", Whole: []string{products, plainProducts, products + "\n", strings.Replace(products, "3\n", "3\n\n", 1), strings.Replace(plainProducts, "\"ab\"", "a,b", 1), strings.Replace(products, "ProductID", "\"ProductID\"", 1), strings.ReplaceAll(products, "a!b", "é_1"), strings.ReplaceAll(products, "a!b", "a\u00a0b"), strings.ReplaceAll(products, "a!b", "\u200b"), strings.ReplaceAll(products, "\"", "")}},
		{ID: "custom:csv_quotes", Whole: []string{students, quotedStudents, quotedStudents + "\n", strings.Replace(quotedStudents, "\"9\"", "9", 1), strings.Replace(quotedStudents, "\"9\"", "", 1), strings.Replace(quotedStudents, "\t\"x\"", "", 1), strings.ReplaceAll(quotedStudents, "\t", ","), strings.ReplaceAll(quotedStudents, "\t", "\t ")}},
		{ID: "custom:date_format_list", Whole: []string{"1769-01-01", "1800-02-29, 1821-12-31", "1768-12-31", "1800-04-31", "1800-02-30", "1800-13-01", "1800-00-77", "1800-00-00", "1800-12-00", "1800-1-01", " 1800-01-01 ,\n1801-01-01", "1800-01-01,", "١٨٠٠-01-01", "𝟏𝟖𝟎𝟎-01-𝟹𝟷", "1800-01-01\n"}},
	}
}

func kinds() []kind {
	return slices.Concat(countKinds(), wordKinds(), sentenceKinds(), formatKinds(), customKinds())
}

// TestUpstream holds the verifiers to what the published Python code said of the
// same texts, strictly and loosely.
//
// The outcomes were made with allenai/IFBench db69a6f (ifbench/instructions.py,
// evaluation_lib.py), nltk 3.9.2 with punkt_tab and emoji 2.16.0 on CPython 3.11.
func TestUpstream(t *testing.T) {
	cases := instructtest.Cases(58, 160, kinds())
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
	got := instructtest.Compare(t, ifbench.Verifiers(), cases, f, nil)
	if len(got) != len(ifbench.Verifiers())-2 || len(got) != 56 {
		t.Errorf("%d kinds of instructions, want 56", len(got))
	}
	for _, a := range got {
		t.Logf("%-32s %3d cases, %3d the same, %3d followed, %d fail upstream", a.ID, a.Cases, a.Same, a.Followed, a.Broken)
	}
}
