"""What the shipped model can draw, and the words for it: things, colours, styles, numbers, where things stand."""
import inflect

# One line a group; a thing is the data set's label, and after `=` the words that people type for it, the usual one first.
THINGS = """
dog = dog, puppy; cat = cat, kitten, kitty; fox; wolf; bear; polar bear; panda; koala; lion; tiger; leopard; horse = horse, pony;
unicorn; zebra; deer; cow; pig; goat; ewe = sheep; camel; giraffe; elephant; rhinoceros = rhino, rhinoceros;
hippopotamus = hippo, hippopotamus; mouse; hamster; rabbit = rabbit, bunny; chipmunk = chipmunk, squirrel; beaver; hedgehog;
sloth; raccoon; kangaroo; monkey; turkey; chicken = chicken, hen; rooster; baby chick = chick; bird; penguin; eagle; duck; swan;
goose; owl; flamingo; peacock; parrot; frog; crocodile = crocodile, alligator; turtle = turtle, tortoise; lizard; snake; dragon;
t rex = dinosaur, t-rex; dolphin; whale; shark; seal; fish; tropical fish; blowfish = pufferfish, blowfish; octopus;
spiral shell = shell, seashell; jellyfish; crab; lobster; squid; snail; butterfly; honeybee = bee, honeybee;
lady beetle = ladybug, ladybird; spider; rose; sunflower; blossom = flower, blossom, daisy; tulip;
potted plant = plant, houseplant; evergreen tree = pine tree, fir; deciduous tree = tree; palm tree; cactus;
four leaf clover = clover; maple leaf = leaf, maple leaf; mushroom = mushroom, toadstool; christmas tree;

grapes = grapes; watermelon; tangerine = orange, tangerine; lemon; banana; pineapple; red apple = apple; pear; peach;
cherries = cherries; strawberry; blueberries = blueberries; kiwi fruit = kiwi; tomato; coconut; avocado;
eggplant = eggplant, aubergine; carrot; ear of corn = corn; hot pepper = chili; bell pepper = pepper; broccoli; garlic; bread;
croissant; baguette bread = baguette; pancakes = pancakes; cheese wedge = cheese; bacon; hamburger = hamburger, burger;
french fries = fries, french fries; pizza; hot dog; sandwich; egg; popcorn; spaghetti = spaghetti, pasta;
steaming bowl = soup, ramen, noodles; sushi; ice cream = ice cream; doughnut = donut, doughnut; cookie;
birthday cake = cake, birthday cake; cupcake = cupcake, muffin; pie; chocolate bar = chocolate; lollipop; honey pot = honey;
glass of milk = milk, glass of milk; hot beverage = cup of coffee, coffee, cup of tea; teapot; wine glass = glass of wine, wine;
cocktail glass = cocktail, martini; beer mug = beer; cup with straw = soda; bubble tea;

automobile = car, automobile; taxi = taxi, cab; delivery truck = truck, lorry; racing car = racing car, race car; bus;
police car; fire engine = fire truck, fire engine; ambulance; tractor; motor scooter = scooter;
motorcycle = motorcycle, motorbike; bicycle = bicycle, bike; skateboard; locomotive = train, steam train;
airplane = airplane, plane, aeroplane; helicopter; rocket = rocket, spaceship; satellite; flying saucer = ufo, flying saucer;
sailboat = sailboat, boat; ship; anchor; vertical traffic light = traffic light; house = house, home; castle;
tokyo tower = tower; fountain; tent; ferris wheel; volcano; snow capped mountain = mountain;
globe showing americas = earth, globe; sun; crescent moon = moon, crescent; star; cloud; cloud with rain = rain, rain cloud;
tornado; rainbow; snowflake; snowman; umbrella; droplet = drop, water drop; fire = fire, flame; ringed planet = planet, saturn;
comet; high voltage = lightning;

smiling face = smiling face, smiley; grinning face = happy face; smiling face with sunglasses = face with sunglasses; angry face;
crying face = crying face, sad face; clown face = clown; ghost; robot; alien; skull; jack o lantern = pumpkin, jack o'lantern;
pile of poo = poo, poop; red heart = heart; broken heart; eye; tooth; bone; baby; astronaut; santa claus = santa; mermaid; ninja;

balloon; wrapped gift = gift, present; teddy bear; soccer ball = soccer ball, football; basketball; baseball; volleyball;
ice skate; kite; bullseye = target, dartboard; trophy; sports medal = medal; crystal ball; magic wand;
video game = game controller; game die = dice, die; puzzle piece; artist palette = palette; guitar; drum; violin; trumpet;
saxophone; accordion; microphone; headphone = headphones; musical note; bell; glasses; sunglasses; necktie = tie;
t shirt = t-shirt, shirt; jeans = jeans, pants, trousers; scarf; gloves = gloves; socks = socks; dress; purse; backpack;
running shoe = shoe, sneaker; high heeled shoe = high heel; top hat = hat, top hat; billed cap = cap; crown; ring;
gem stone = diamond, gem; camera; television = television, tv; laptop = laptop, computer; mobile phone = phone; telephone;
battery; floppy disk; light bulb; flashlight = flashlight, torch; candle; alarm clock = clock, alarm clock; watch;
hourglass done = hourglass; magnifying glass tilted left = magnifying glass; telescope; pill; thermometer; magnet; key;
locked = lock, padlock; hammer; axe; wrench; screwdriver; gear = gear, cog; toolbox; ladder; bucket; broom; basket; toothbrush;
scissors = scissors; pencil; pen; paintbrush; closed book = book; envelope = envelope, letter; package = box, parcel; briefcase;
luggage = suitcase; money bag; coin; chair; bed; bathtub; dagger = sword, dagger; shield; bomb
"""

BACKGROUNDS = {
    "white": (255, 255, 255), "black": (12, 12, 14), "gray": (140, 140, 144), "red": (222, 40, 44), "orange": (250, 140, 30),
    "yellow": (252, 214, 50), "green": (52, 168, 72), "blue": (44, 100, 226), "purple": (136, 62, 200), "pink": (250, 150, 196),
    "brown": (122, 76, 44), "turquoise": (48, 200, 196), "light blue": (170, 216, 250), "light green": (184, 234, 178),
    "dark blue": (18, 32, 92), "dark green": (14, 74, 40), "beige": (240, 226, 200)}
# Other words for a colour.
ALSO = {"gray": "grey", "purple": "violet", "turquoise": "teal", "light blue": "sky blue", "dark blue": "navy"}
# A colour that a thing can be turned to: hue in degrees, lightness to aim at.
HUES = {"red": (2, .40), "orange": (28, .60), "yellow": (50, .78), "green": (120, .48), "turquoise": (176, .62), "blue": (218, .42),
        "purple": (272, .40), "pink": (325, .60)}
GRAYS = {"black": (.0, .35), "white": (.62, .38), "gray": (.25, .45)}         # lightness = first + second * what it was
COLOURS = [*HUES, *GRAYS]
STYLES = {"3d": "fluent-3d", "flat": "fluent-flat", "cartoon": "noto", "glossy": "fluent-color"}             # style -> set of icons
COUNTS = {2: ("two", "2"), 3: ("three", "3"), 4: ("four", "4")}
# Where the first thing stands, seen from the second -> the words between them.
RELATIONS = {"beside": ("and", "next to", "beside"), "above": ("above", "over"), "below": ("below", "under")}
UNCOUNTED = {"bread", "cheese", "sushi", "corn", "fire", "coffee", "broccoli", "garlic", "popcorn", "bacon", "soup", "ramen", "milk",
             "wine", "beer", "honey", "chocolate", "spaghetti", "pasta", "rain", "lightning", "poo", "poop", "bubble tea"}
FRONTS = ("a picture of", "a photo of", "a drawing of", "an icon of", "an emoji of")
ENGLISH = inflect.engine()


def things():
    """{label: its words, the usual one first}"""
    found = {}
    for entry in THINGS.replace("\n", " ").split(";"):
        label, _, words = entry.strip().partition(" = ")
        assert label not in found, f"{label!r} is listed twice"
        found[label] = words.split(", ") if words else [label]
    return found


WORDS = things()


def is_plural(name):
    return name.split()[-1] in ("grapes", "cherries", "blueberries", "fries", "scissors", "glasses", "sunglasses", "headphones", "jeans",
                                "pants", "trousers", "gloves", "socks", "pancakes", "noodles", "dice")


def plural(name):
    """cup of coffee -> cups of coffee, mouse -> mice"""
    if is_plural(name) or name in UNCOUNTED:
        return name
    front, of, rest = name.partition(" of ")
    return ENGLISH.plural_noun(front) + of + rest


def with_article(name, rng=None):
    """a, an, and for what is not counted nothing or some; at times the, or no article, as people type."""
    bare = name.split(" ", 1)[-1] if name.split(" ")[0] in (*BACKGROUNDS, *ALSO.values()) else name
    usual = name if is_plural(bare) or bare in UNCOUNTED else ENGLISH.a(name)
    if rng is None or rng.random() < .8:
        return usual
    return rng.choice((f"the {name}", name, f"some {name}" if usual == name else usual))


def vocabulary():
    """Every word that a caption can hold: things first, then the rest."""
    first = sorted({w for names in WORDS.values() for name in names for form in (name, plural(name)) for w in form.split()})
    rest = " ".join([*BACKGROUNDS, *ALSO.values(), *HUES, *STYLES, *FRONTS, *(w for c in COUNTS.values() for w in c),
                     *(w for r in RELATIONS.values() for w in r), "a an the some and background icon in of on style with"])
    return first + sorted(set(rest.split()) - set(first))
