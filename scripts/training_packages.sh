#!/bin/sh
# Fonts and word lists for the synthetic training data (Debian and its kin; all from the free part, licences in
# docs/training-data.md). Optional: without them the generator makes do with the fonts it finds, with a warning.
#   sudo scripts/training_packages.sh
set -eu

SERIF="fonts-dejavu-extra fonts-liberation fonts-ebgaramond fonts-crosextra-caladea fonts-sil-gentium
 fonts-sil-charis fonts-linuxlibertine fonts-oldstandard fonts-vollkorn fonts-goudybookletter fonts-lindenhill
 fonts-fanwood fonts-prociono fonts-quattrocento fonts-texgyre fonts-cmu fonts-stix fonts-essays1743
 fonts-averia-serif-gwf fonts-paratype fonts-adf-accanthis fonts-adf-baskervald fonts-adf-berenis
 fonts-adf-romande fonts-adf-tribun fonts-arapey fonts-century-catalogue fonts-roboto-slab"
SANS="fonts-lato fonts-open-sans fonts-roboto-unhinted fonts-inter fonts-cantarell fonts-cabin fonts-dosis
 fonts-comfortaa fonts-quicksand fonts-karla fonts-play fonts-junction fonts-jura fonts-manrope fonts-sora
 fonts-clear-sans fonts-crosextra-carlito fonts-oxygen fonts-b612 fonts-tuffy fonts-routed-gothic
 fonts-league-spartan fonts-averia-sans-gwf fonts-adf-gillius fonts-adf-universalis fonts-adf-verana
 fonts-sil-andika fonts-freefont-ttf fonts-noto-core"
MONO="fonts-hack fonts-inconsolata fonts-jetbrains-mono fonts-firacode fonts-anonymous-pro fonts-courier-prime
 fonts-go fonts-mononoki fonts-fantasque-sans fonts-monofur fonts-agave fonts-hermit fonts-league-mono
 fonts-ocr-a fonts-ocr-b fonts-3270 fonts-glasstty"
HAND="fonts-dancingscript fonts-breip fonts-kaushanscript fonts-sjfonts fonts-dkg-handwriting fonts-rufscript
 fonts-comic-neue fonts-ecolier-court fonts-kristi"
DISPLAY_FACES="fonts-lobster fonts-lobstertwo fonts-leckerli-one fonts-yanone-kaffeesatz fonts-engadget
 fonts-eurofurence fonts-dustin fonts-opendyslexic fonts-compagnon fonts-cherrybomb"
WORDS="wamerican wngerman wfrench wspanish witalian"

apt-get update -qq
# shellcheck disable=SC2086  # lists of packages
apt-get install -y -q --no-install-recommends fontconfig $SERIF $SANS $MONO $HAND $DISPLAY_FACES $WORDS
