"""English text for synthesizers to read if no recorded speech without the keyword is given.

It consists of sentences from books in the public domain (Carroll, Austen, Melville, Doyle, Dickens, Grahame,
Stevenson, Wells, Shelley, Twain), and of common words that are read in random order, for a variety of sounds.
"""

from __future__ import annotations

import numpy as np

SENTENCES = (
    "Alice was beginning to get very tired of sitting by her sister on the bank",
    "once or twice she had peeped into the book her sister was reading",
    "and what is the use of a book, thought Alice, without pictures or conversations",
    "the rabbit hole went straight on like a tunnel for some way, and then dipped suddenly down",
    "either the well was very deep, or she fell very slowly",
    "I wonder how many miles I have fallen by this time, she said aloud",
    "the table was a large one, but the three were all crowded together at one corner of it",
    "why is a raven like a writing desk",
    "it is a truth universally acknowledged that a single man in possession of a good fortune "
    "must be in want of a wife",
    "my dear Mister Bennet, said his lady to him one day, have you heard that the park is let at last",
    "he was the proudest, most disagreeable man in the world, and everybody hoped that he would "
    "never come there again",
    "vanity and pride are different things, though the words are often used synonymously",
    "happiness in marriage is entirely a matter of chance",
    "call me Ishmael, some years ago, never mind how long precisely",
    "having little or no money in my purse, I thought I would sail about a little",
    "whenever it is a damp, drizzly November in my soul, I account it high time to get to sea",
    "there now is your insular city, belted round by wharves as Indian isles by coral reefs",
    "to Sherlock Holmes she is always the woman, I have seldom heard him mention her under any other name",
    "you see, but you do not observe, the distinction is clear",
    "it was close upon four before the door opened, and a drunken looking groom walked into the room",
    "I had called upon my friend one day in the autumn of last year and found him in deep conversation "
    "with an elderly gentleman",
    "the game is afoot, not a word, into your clothes and come",
    "it was the best of times, it was the worst of times, it was the age of wisdom",
    "there were a king with a large jaw and a queen with a plain face on the throne of England",
    "it is a far, far better thing that I do than I have ever done",
    "please sir, I want some more",
    "Marley was dead to begin with, there is no doubt whatever about that",
    "the register of his burial was signed by the clergyman, the clerk, and the undertaker",
    "the mole had been working very hard all the morning, spring cleaning his little home",
    "there is nothing, absolutely nothing, half so much worth doing as simply messing about in boats",
    "the sun was still shining brightly on the meadow, and the river chattered on to him",
    "Squire Trelawney and the rest of these gentlemen asked me to write down the whole particulars "
    "about the island",
    "he was a very silent man by custom, and all day he hung round the cove with a brass telescope",
    "fifteen men on the dead man's chest, yo ho ho and a bottle of rum",
    "the coxswain loosened his grip, and I fell back upon the deck",
    "the time traveller was expounding a recondite matter to us, his pale grey eyes shone and twinkled",
    "no one would have believed in the last years of the century that this world was being watched",
    "across the gulf of space, minds vast and cool and unsympathetic regarded this earth with envious eyes",
    "I saw the dull yellow eye of the creature open, it breathed hard, and a motion agitated its limbs",
    "nothing is so painful to the human mind as a great and sudden change",
    "I had worked hard for nearly two years for the sole purpose of infusing life into an inanimate body",
    "you don't know about me without you have read a book by the name of Tom Sawyer, but that is no matter",
    "the widow rung a bell for supper, and you had to come to time",
    "we said there was no home like a raft after all, other places do seem so cramped up and smothery",
    "Saturday morning was come, and all the summer world was bright and fresh and brimming with life",
    "does a boy get a chance to whitewash a fence every day",
    "the yellow fog rubbed its back along the window panes of every house in the street",
    "she poured the tea, cut the bread and butter, and asked whether he took sugar",
    "turn the handle twice to the left and push, or it will not open",
    "the committee will meet again on Thursday at half past seven to discuss the new budget",
    "put the kettle on, fetch the milk, and call your brother in from the garden",
    "yesterday's weather was warm and dry, with a gentle wind from the south west",
    "we drove through the valley, past the old mill, and over the bridge into the village",
    "the doctor told him to rest, to drink plenty of water, and to come back in a week",
    "he plays the violin, she plays the piano, and their children would rather play football",
    "would you mind closing the window, it is getting rather cold in here",
    "the museum opens at nine, but the ticket office does not open before ten",
    "thank you very much for your letter, which reached me only this afternoon",
    "my uncle keeps bees, two goats, a donkey, and a very noisy parrot",
    "the ship was due to leave at dawn, but the captain could not be found anywhere",
)  # fmt: skip

WORDS = tuple(
    """
    about above accept account across action address after again against almost already always among amount
    animal another answer anything appear apple arrive August autumn away baby balance banana basket
    beautiful because become before begin behind believe better between beyond bicycle birthday blanket blue
    body bottle bread breakfast bridge bring broken brother build business butter button camera candle
    captain careful carry castle catch center century certain chair chance change chapter cheap chicken
    children choose church circle city clean clever climb clock close coffee color command common company
    compare complete concert condition consider contain continue corner correct cotton could country couple
    cousin cover create culture cupboard current curtain customer damage dangerous daughter December decide
    deep deliver depend describe desert design detail develop different difficult dinner direction discover
    distance divide doctor dollar double dozen dream during early earth easily east effort either electric
    eleven enough enter equal evening every example except exercise expect experience explain family famous
    farmer father favorite feather February fellow figure finger finish fire flower follow foreign forest
    forget fork Friday friend fruit future garden gather general gentle giant glass golden government
    grammar grandmother grass great green ground group guess guitar hammer handle happen harbor heavy
    history holiday honest hospital hotel however hundred hungry husband imagine important improve include
    increase indeed industry insect inside instead interest iron island jacket January journey judge juice
    June jump kettle kitchen knife know language laugh leader learn leather letter level library light
    listen little local lucky machine magazine manage market matter measure medicine member memory message
    middle minute mirror modern Monday money month morning mother motor mountain mouth movement music narrow
    nation nature necessary neighbor never newspaper normal north nothing notice November number object
    ocean October offer office often onion open opinion orange order other outside oxygen package page
    painting paper parent partner party patient pencil people pepper perfect perhaps person picture pillow
    planet plastic pleasant pocket police polite popular position possible potato power practice prepare
    present president pretty prison private problem produce promise protect provide public pupil purple
    purpose quality quarter question quick quiet radio railway rather reach ready reason receive recent
    record region regular remember repeat report result return ribbon river rocket saddle salad sample
    Saturday school science season second secret seldom sentence September serious seven several shadow
    shoulder silver similar simple singer single sister situation slowly soldier someone sometimes soon
    special spider spoon spring square station statue stomach story straight strange street strong student
    subject succeed sudden sugar suggest summer Sunday supper support surprise sweater sweet swimming system
    tailor teacher telephone television temperature terrible theater themselves therefore thirteen thousand
    thread through Thursday ticket today together tomorrow tonight toward travel trouble trousers Tuesday
    twelve twenty umbrella uncle under understand uniform university until upon useful usual valley value
    vegetable village visit voice vowel voyage waiter wander warm water weather Wednesday week welcome west
    whatever wheel whether whisper window winter without woman wonder wooden world worry yellow yesterday
    young zebra
    """.split()  # noqa: SIM905
)
"""Common words that contain all sounds of English."""


def lines(count: int, *, seed: int) -> list[str]:
    """Return `count` lines to be read: a third are sentences, the others words in random order."""
    rng = np.random.default_rng(seed)
    return [
        SENTENCES[rng.integers(len(SENTENCES))]
        if rng.random() < 1 / 3
        else " ".join(rng.choice(WORDS, int(rng.integers(4, 11))))
        for _ in range(count)
    ]
